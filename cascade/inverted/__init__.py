"""Searching the first stage where it is stored, by an inverted file (IVF) of measured recall."""
