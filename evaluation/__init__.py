"""Measurement: recall and agreement, wall clock, intervals, and the report that holds them."""
