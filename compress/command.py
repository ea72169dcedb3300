"""What every command of this project does that computes: errors in one line, quiet libraries."""

import logging
import sys
import warnings
from collections.abc import Callable, Sequence

import datasets
import transformers

from commands import run
from commands.flags import Options
from compress.errors import UserError
from corpora import CorpusError
from pruning_mechanism import TowerError

MENDABLE = (UserError, TowerError, CorpusError)
"""What the libraries raise where a user of a command can do something about it."""


def run_command(
    main: Callable[[Options], None],
    options: type[Options],
    name: str,
    arguments: Sequence[str] | None = None,
) -> None:
    """Run a command; the arguments are those of `commands.run`."""

    def quietly(given: Options) -> None:
        _quiet_libraries()
        main(given)

    run.run_command(quietly, options, name, arguments, MENDABLE)


def _quiet_libraries() -> None:
    """Leave the screen to this project's own bars and messages."""
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    warnings.showwarning = _show_warning


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    print(f"{category.__name__}: {message}", file=sys.stderr)
