"""Seconds, confidence intervals, and the machine they were measured on."""
