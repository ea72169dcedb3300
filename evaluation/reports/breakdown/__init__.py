"""The report of `evaluation.breakdown`, and its table."""
