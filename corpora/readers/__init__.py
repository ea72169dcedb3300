"""From what publishers ship to the rows of a split: a reader for each, and what they share."""
