"""Convolutions in float32 without TF32, to which cuDNN rounds what it multiplies by default."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_lock = threading.Lock()
_within = 0
_before: bool | None = True


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Without TF32 in cuDNN, as long as any thread is within; afterwards as it was."""
    global _within, _before
    with _lock:
        if not _within:
            _before = _allowed()
            _allow(None if _before is None else False)
        _within += 1
    try:
        yield
    finally:
        with _lock:
            _within -= 1
            if not _within:
                _allow(_before)


def _allowed() -> bool | None:
    """Whether cuDNN rounds; None: the program says it by torch's newer switch, which holds."""
    try:
        return torch.backends.cudnn.allow_tf32
    except RuntimeError:  # torch refuses to read one switch where the other was set
        return None


def _allow(rounding: bool | None) -> None:
    if rounding is not None:
        torch.backends.cudnn.allow_tf32 = rounding
