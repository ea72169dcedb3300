"""What experiments leave on disk, and the tables made of it."""
