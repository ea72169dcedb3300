"""From the bytes of a file to an upright RGB picture, whatever else is in the file."""
