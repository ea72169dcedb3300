"""Students: first stages that are not cut out of the full tower but made of other encoders."""
