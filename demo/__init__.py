"""The demo checkpoint, a small CLIP that needs no download, and the script that made it."""
