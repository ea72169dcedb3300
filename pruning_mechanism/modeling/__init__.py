"""The modelling code of smaller towers, which checkpoints carry with them."""
