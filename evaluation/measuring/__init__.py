"""Seconds, confidence intervals and the machine that they are of."""
