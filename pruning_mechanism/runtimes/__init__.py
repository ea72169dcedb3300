"""What computes a vision tower: torch itself, or a graph of it in another program's runtime.

Between the smaller tower and the stage. `table` names the runtimes; each embeds pixels and nothing
else (`runtime.Runtime`). Those that aren't torch run a graph (`graph`), exported beside the weights
or into the user's cache (`exports`), whose embeddings are compared with torch's (`parity`).
"""

from pruning_mechanism.runtimes.choosing import RuntimeChoice, check_chosen, choose_runtime
from pruning_mechanism.runtimes.runtime import DTYPES, Dtype, Runtime
from pruning_mechanism.runtimes.table import (
    AUTO,
    RUNTIMES,
    Subject,
    check_known,
    make_runtime,
)

__all__ = [
    "AUTO",
    "DTYPES",
    "RUNTIMES",
    "Dtype",
    "Runtime",
    "RuntimeChoice",
    "Subject",
    "check_chosen",
    "check_known",
    "choose_runtime",
    "make_runtime",
]
