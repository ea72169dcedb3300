"""Watches passes of a tower by torch's profiler: which kernels ran, and for how long."""

import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from evaluation.profiling.groups import Kernel, Shares, shares
from pruning_mechanism.costs.clock import seconds_of

PASSES = 3
ON_GPU = ("kernel", "gpu_memcpy", "gpu_memset")
ON_CPU = ("cpu_op", "user_annotation")
"""Categories of events in a trace; compiled programs annotate themselves."""


def kernel_shares(
    work: Callable[[], object], seconds: float, device: torch.device
) -> Shares | None:
    """What the time of a pass goes to; None: the profiler sees nothing of it.

    Args:
        work: a pass.
        seconds: that it takes on a GPU, measured without the profiler, which slows launches but no
            kernels. A CPU is as slow as the profiler makes it for both.
        device: where it computes.
    """
    on_gpu = device.type == "cuda"
    events, watched = traced(work, device)
    return shares(kernels_of(events, on_gpu), PASSES * seconds if on_gpu else watched)


def traced(work: Callable[[], object], device: torch.device) -> tuple[list[dict[str, Any]], float]:
    """The events of `PASSES` passes as Chrome's traces have them, and the passes' seconds.

    One pass that isn't watched comes before them.
    """

    def passes() -> None:
        for _ in range(PASSES):
            work()

    seconds_of(work, device)
    kinds = [ProfilerActivity.CPU]
    if device.type == "cuda":
        kinds.append(ProfilerActivity.CUDA)
    with profile(activities=kinds) as watched:
        seconds = seconds_of(passes, device)
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "trace.json"
        watched.export_chrome_trace(str(file))
        events: list[dict[str, Any]] = json.loads(file.read_text())["traceEvents"]
    return events, seconds


def kernels_of(events: Iterable[Mapping[str, Any]], on_gpu: bool) -> list[Kernel]:
    """The kernels in a trace: the GPU's, or a CPU's operators without what these call."""
    wanted = ON_GPU if on_gpu else ON_CPU
    found = [event for event in events if event.get("cat") in wanted and "dur" in event]
    if on_gpu:
        return [Kernel(event["name"], event["dur"] / 1e6) for event in found]
    threads = defaultdict(list)
    for event in found:
        threads[event["tid"]].append(event)
    return [kernel for thread in threads.values() for kernel in _alone(thread)]


def _alone(events: Iterable[Mapping[str, Any]]) -> list[Kernel]:
    """Operators of one thread with the time that they spend in none of the others."""
    open_calls: list[tuple[float, int]] = []  # when each ends, and its place in what is found
    names, own = list[str](), list[float]()
    for event in sorted(events, key=lambda event: (event["ts"], -event["dur"])):
        while open_calls and open_calls[-1][0] <= event["ts"]:
            open_calls.pop()
        if open_calls:
            own[open_calls[-1][1]] -= event["dur"]
        open_calls.append((event["ts"] + event["dur"], len(names)))
        names.append(event["name"])
        own.append(event["dur"])
    return [Kernel(name, max(0.0, taken) / 1e6) for name, taken in zip(names, own, strict=True)]
