"""A tower in several runtimes: how each is made, timed, and what it finds."""
