"""What is in a generated scene, how it looks, and what is truly said of it."""
