"""Rendered worlds, in which everything about an image is known."""
