"""A program of a GPU whose launches are recorded once, as a CUDA graph, and replayed at once.

Launching a tower's kernels one by one takes the CPU longer than a GPU needs to compute a small
batch. A recorded graph has one size of batch, so batches are filled up to one of a few sizes. torch
records graphs itself (`mode="reduce-overhead"`), but only for the thread that compiled; stages are
called from any thread.
"""

import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pruning_mechanism.checkpoints.record import first_line
from pruning_mechanism.runtimes.compiling import of_compiler

LARGEST = 256
"""The largest batch that is recorded: kernels of larger ones take longer than their launches."""
WARM_UP = 2
"""Passes before one is recorded: programs are compiled and workspaces allocated by then."""
_recording = threading.Lock()  # CUDA records one graph of a process at a time


def recorded_size(images: int) -> int | None:
    """The size that a batch is filled up to; None: it is computed as it is.

    Powers of two up to 32, then multiples of 16. Of a batch of one torch.compile would make another
    program.
    """
    if not 1 <= images <= LARGEST:
        return None
    return max(2, 1 << (images - 1).bit_length()) if images <= 32 else -(-images // 16) * 16


@dataclass(frozen=True)
class _Recorded:
    """A graph with the memory that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    taken: Tensor
    given: Tensor


class Replayed:
    """A program as a function of batches [n, …] → [n, d], recorded for each size at its first use.

    Any thread may call it, on any stream: one at a time replays. Results are the caller's own.
    """

    def __init__(self, program: Callable[[Tensor], Tensor], device: torch.device) -> None:
        """Record nothing yet.

        Args:
            program: of rows that don't depend on each other, on the device.
            device: a GPU of CUDA.
        """
        self._program = program
        self._device = device
        self._lock = threading.Lock()
        self._recorded: dict[tuple[object, ...], _Recorded] = {}
        self._pool = torch.cuda.graph_pool_handle()
        self._beside = torch.cuda.Stream(device)
        self._done = torch.cuda.Event()
        self.problem: str | None = None

    def __call__(self, batch: Tensor, dtype: torch.dtype) -> Tensor:
        """What the program makes of a batch, which is cast to a type on the way to the device."""
        size = recorded_size(len(batch))
        # a program is compiled anew for what inference mode makes: here it never sees any
        with torch.inference_mode(False), torch.no_grad(), torch.cuda.device(self._device):
            if size is not None and self.problem is None:
                with self._lock:
                    found = self._of(size, batch, dtype)
                    if found is not None:
                        return self._replayed(found, batch)
            return self._program(batch.to(self._device, dtype, copy=True))

    def _replayed(self, recorded: _Recorded, batch: Tensor) -> Tensor:
        stream = torch.cuda.current_stream()
        stream.wait_event(self._done)  # another stream's batch may be in the same memory still
        recorded.taken[: len(batch)].copy_(batch)
        recorded.graph.replay()
        own = recorded.given[: len(batch)].clone()
        self._done.record(stream)
        return own

    def _of(self, size: int, batch: Tensor, dtype: torch.dtype) -> _Recorded | None:
        """The graph of a size, recorded if need be; None: the program can't be recorded."""
        kind = (size, *batch.shape[1:], dtype)
        if kind not in self._recorded:
            taken = torch.zeros(size, *batch.shape[1:], dtype=dtype, device=self._device)
            try:
                self._recorded[kind] = self._record(taken)
            except RuntimeError as error:  # such as a step that waits for the GPU to choose tokens
                if of_compiler(error) or "out of memory" in str(error):
                    raise
                self.problem = first_line(error)
                warnings.warn(
                    f"a CUDA graph of this tower can't be recorded ({self.problem}): its kernels "
                    "are launched one by one, which small batches wait for",
                    stacklevel=4,
                )
                return None
        return self._recorded[kind]

    def _record(self, taken: Tensor) -> _Recorded:
        beside = self._beside
        beside.wait_stream(torch.cuda.current_stream())
        beside.wait_event(self._done)  # another stream's replay may use the same workspaces
        with torch.cuda.stream(beside):
            for _ in range(WARM_UP):
                self._program(taken)
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        # what other threads ask of the GPU meanwhile, such as memory, is none of this graph's
        with (
            _recording,
            torch.cuda.graph(
                graph, pool=self._pool, stream=beside, capture_error_mode="thread_local"
            ),
        ):
            given = self._program(taken)
        return _Recorded(graph, taken, given)
