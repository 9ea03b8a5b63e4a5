"""A batch and its transaction: what both doors store through."""
