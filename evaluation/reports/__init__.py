"""What experiments leave on disk, and the tables that show it."""
