"""What a user can do wrong with a collection, or what can go wrong with it, in one line."""


class CollectionError(ValueError):
    """A collection can't be opened, read or written; the message says why and what to do."""


class MigratedError(CollectionError):
    """A collection that has other stages by now than this program opened it with."""
