"""Files of queries that a command line names."""

from pathlib import Path

from commands.errors import UsageError


def queries_in(path: Path) -> list[str]:
    """The queries of a text file, one a line; empty lines are none.

    Raises:
        UsageError: there are none, or it isn't text.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UsageError(f"--queries {path} isn't text in UTF-8: {error.reason}") from error
    queries = [line.strip() for line in lines if line.strip()]
    if not queries:
        raise UsageError(f"--queries {path} holds no queries: write one a line")
    return queries
