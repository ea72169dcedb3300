"""What was learnt of how a collection's two stages agree: adaptive m, and probabilities of hits."""
