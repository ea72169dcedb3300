"""What a cascade returns beside its last stage alone, measured on a sample of a collection."""
