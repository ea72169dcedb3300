"""Running a command of the search engine: its libraries' errors become one line."""

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
) -> None:
    """Run a command; the arguments are those of `commands.run`.

    `instead` is asked first, before libraries are loaded: whether it has done the work. Then the
    program ends here, since what follows in a module that is a command would load them.
    """
    done = False

    def answering(given: Options) -> None:
        nonlocal done
        if instead is not None and instead(given):
            done = True
            return
        with announced("loading libraries"):
            import transformers

            from cascade.storing.errors import CollectionError
            from corpora import CorpusError
            from pruning_mechanism import TowerError

            transformers.utils.logging.disable_progress_bar()
            transformers.utils.logging.set_verbosity_error()
            warnings.filterwarnings("ignore", module="PIL")  # of files that decode all the same
        try:
            main(given)
        except (TowerError, CorpusError, CollectionError) as error:
            raise UsageError(str(error)) from error

    run.run_command(answering, options, name, arguments)
    if done:
        sys.exit(0)
