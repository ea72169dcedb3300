"""What a tower's time goes to: products of matrices, attention, the rest, or waiting."""
