"""Where a measurement was made: the machine and the versions that a report states."""

import importlib.metadata
import os
import platform
from collections.abc import Sequence

import torch

from evaluation.measuring.values import Machine
from pruning_mechanism.costs.processor import processor_name

PACKAGES = (
    "torch",
    "torchvision",
    "transformers",
    "torch-pruning",
    "datasets",
    "pillow",
    "simplejpeg",
)


def this_machine(device: str | torch.device, dtype: torch.dtype) -> Machine:
    """Describe the machine that this process runs on.

    Args:
        device: where the towers were computed.
        dtype: what they were computed in.
    """
    device = torch.device(device)
    name = device.type
    if device.type == "cuda":
        name = f"cuda ({torch.cuda.get_device_name(device)})"
    usable = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return Machine(
        cpu=processor_name(),
        cores=len(usable(0)) if usable else os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        device=name,
        dtype=str(dtype).removeprefix("torch."),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
    )


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Version of Python and of each named package, "not installed" where it isn't."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
