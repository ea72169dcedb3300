"""A new last stage for a collection without encoding all of its images again."""
