"""Convolutions in float32 without TF32, to which cuDNN rounds what it multiplies by default."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_lock = threading.Lock()
_within = 0
_before = True


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Without TF32 in cuDNN, as long as any thread is within; afterwards as it was."""
    global _within, _before
    with _lock:
        if not _within:
            _before = torch.backends.cudnn.allow_tf32
            torch.backends.cudnn.allow_tf32 = False
        _within += 1
    try:
        yield
    finally:
        with _lock:
            _within -= 1
            if not _within:
                torch.backends.cudnn.allow_tf32 = _before
