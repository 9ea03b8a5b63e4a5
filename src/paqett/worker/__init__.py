"""What happens outside a request: jobs, moves, and the watch over retention."""
