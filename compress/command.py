"""Running a command that computes, here and in the folders above.

Between such commands and the floor of all command lines (`commands`). The libraries that towers and
corpora need are imported only once the command line is read.
"""

import logging
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import TextIO

from commands import run
from commands.flags import Options
from commands.screen import announced
from compress.errors import UserError


def run_command(
    main: Callable[[Options], None],
    options: type[Options],
    name: str,
    arguments: Sequence[str] | None = None,
) -> None:
    """Run a command; the arguments are those of `commands.run`."""

    def answering(given: Options) -> None:
        with announced("loading libraries"):
            from corpora import CorpusError
            from pruning_mechanism import TowerError

            _quiet_libraries()
        try:
            main(given)
        except (TowerError, CorpusError) as error:
            raise UserError(str(error)) from error

    run.run_command(answering, options, name, arguments, (UserError,))


def _quiet_libraries() -> None:
    """Leave the screen to this project's own bars and messages."""
    import datasets
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    warnings.showwarning = _show_warning


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    print(f"{category.__name__}: {message}", file=sys.stderr)
