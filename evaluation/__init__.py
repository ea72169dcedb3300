"""Measures recall, agreement and seconds of cascades, and reports them."""
