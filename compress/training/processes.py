"""Several processes that train together, as `torchrun` and `accelerate launch` start them.

Each reads its place from the environment. All of them do the same up to the training and after it;
the first writes what comes of it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager


def processes() -> int:
    """How many train together."""
    return int(os.environ.get("WORLD_SIZE", 1))


def is_first() -> bool:
    """Whether this is the process that writes."""
    return int(os.environ.get("RANK", 0)) == 0


@contextmanager
def first_alone(device: str) -> Iterator[None]:
    """Within the context the first process is done before the others begin.

    Args:
        device: where they compute.
    """
    if processes() == 1:
        yield
        return
    from accelerate import PartialState  # here, since only training needs it

    with PartialState(cpu=device == "cpu").main_process_first():
        yield
