"""The report of `evaluation.zero_shot`, and its table."""
