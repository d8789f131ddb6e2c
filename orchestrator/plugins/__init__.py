"""Code of the user's own: named by the user, imported, put into the tables, taken along to the workers."""
