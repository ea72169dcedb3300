"""Trains what closed form leaves alone, against the full tower's embeddings; needs images only."""
