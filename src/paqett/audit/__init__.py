"""The privacy check: what a deployment really keeps, held to what it promises."""
