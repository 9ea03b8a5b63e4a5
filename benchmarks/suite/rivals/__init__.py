"""What a user would pick instead of Paqett: installed, configured, driven and killed."""
