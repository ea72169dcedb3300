"""The error that a command turns into one line and exit status 2."""


class UsageError(Exception):
    """Something that the user of a command can fix: one line says what is wrong and what to do."""
