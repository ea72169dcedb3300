"""The error that a command turns into one line and exit status 2."""


class UserError(Exception):
    """What the user can mend, in one line that says what is wrong and what to do."""
