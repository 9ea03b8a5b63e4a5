"""Deleting an account: asked for, undone, carried out to the last row, and shown by a receipt."""
