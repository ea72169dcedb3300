"""Checkpoints on disk: weights, records and processors, read and written."""
