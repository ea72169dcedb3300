"""A tower in int8: which products are left in float32, quantising, the projection solved anew."""
