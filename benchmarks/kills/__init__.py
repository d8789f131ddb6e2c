"""A kill campaign in parts. Nothing here knows the product's code: only its command and its tables."""
