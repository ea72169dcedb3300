"""Running a command that reads reports and computes with no tower: it starts without torch."""

from collections.abc import Callable, Sequence

from commands import run
from commands.flags import Options
from evaluation.reports.record import RecordError


def run_command(
    main: Callable[[Options], None],
    options: type[Options],
    name: str,
    arguments: Sequence[str] | None = None,
) -> None:
    """Run a command; the arguments are those of `commands.run`."""
    run.run_command(main, options, name, arguments, (RecordError,))
