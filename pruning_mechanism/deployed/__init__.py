"""Towers in the runtime and type that they will run in, and what they take there in seconds."""
