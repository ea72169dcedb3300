"""Running a command of the search engine: its libraries' errors become one line."""

import os
import sys
import warnings
from collections.abc import Callable, Sequence

from commands import run
from commands.errors import UsageError
from commands.flags import Options
from commands.screen import announced


def run_command(
    main: Callable[[Options], None],
    options: type[Options],
    name: str,
    arguments: Sequence[str] | None = None,
    instead: Callable[[Options], bool] | None = None,
    towers: bool = True,
) -> None:
    """Run a command; the arguments are those of `commands.run`.

    `instead` is asked first, before libraries are loaded: whether it has done the work. Then the
    program ends here, since what follows in a module that is a command would load them. A command
    that runs no `towers` doesn't load what these need.
    """
    done = False

    def answering(given: Options) -> None:
        nonlocal done
        if instead is not None and instead(given):
            done = True
            return
        errors = _errors(towers)
        try:
            main(given)
        except errors as error:
            raise UsageError(str(error)) from error

    run.run_command(answering, options, name, arguments)
    if done:
        sys.exit(0)


def _errors(towers: bool) -> tuple[type[Exception], ...]:
    """What a user can do wrong, of libraries that are loaded and hushed here."""
    from cascade.storing.errors import CollectionError

    if not towers:
        return (CollectionError,)
    # While photos are decoded and queries answered, several threads compute beside a tower's own,
    # which by default keep their cores busy while they wait for each other. Read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with announced("loading libraries"):
        import transformers

        from corpora import CorpusError
        from pruning_mechanism import TowerError

        transformers.utils.logging.disable_progress_bar()
        transformers.utils.logging.set_verbosity_error()
        warnings.filterwarnings("ignore", module="PIL")  # of files that decode all the same
    return (TowerError, CorpusError, CollectionError)
