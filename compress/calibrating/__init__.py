"""What is gathered from calibration images: gradients, token weights, residual streams."""
