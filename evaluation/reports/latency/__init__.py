"""The report of `evaluation.latency`, and its table."""
