"""The error that a command turns into one line and exit status 2."""


class UsageError(Exception):
    """What the user of a command can mend: one line that says what is wrong and what to do."""
