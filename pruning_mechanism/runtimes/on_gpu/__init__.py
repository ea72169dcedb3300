"""What torch does otherwise on an NVIDIA GPU: products in 8 bits, and launches recorded once."""
