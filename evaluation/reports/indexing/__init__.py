"""The report of `evaluation.indexing`, and its table."""
