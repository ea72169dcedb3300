"""The reports of several seeds together, and their table."""
