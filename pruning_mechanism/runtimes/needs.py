"""What a runtime needs of a machine: libraries, and a processor that has its type."""

from importlib.util import find_spec
from pathlib import Path

import torch

from pruning_mechanism.families import TowerError
from pruning_mechanism.runtimes.runtime import Dtype

_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")
"""What Linux calls a processor's products in bfloat16: x86's, and Arm's."""


def check_installed(what: str, modules: tuple[str, ...], extra: str) -> None:
    """Raise `TowerError` with the line that installs what is missing, if anything is.

    Args:
        what: that needs it.
        modules: all of them.
        extra: of this package that brings them.
    """
    missing = [name for name in modules if not installed(name)]
    if missing:
        raise TowerError(
            f"{what} needs {' and '.join(missing)}: pip install 'clip-cascade[{extra}]'"
        )


def installed(module: str) -> bool:
    """Whether a library is there to be imported."""
    try:
        return find_spec(module) is not None
    except ValueError:  # in place of a module stands something without a specification
        return False


def type_problem(dtype: Dtype, device: str) -> str | None:
    """Why torch doesn't compute in a type on a device, or no faster; None: it does."""
    if dtype == "float16":
        return float16_problem(device)
    if dtype == "bfloat16":
        return bfloat16_problem(device)
    if dtype == "float8" or dtype == "int8":
        return eight_bits_problem(dtype, device)
    return None


def float16_problem(device: str) -> str | None:
    """Why a device doesn't compute in float16; None: it does."""
    kind = torch.device(device).type
    if kind == "cuda" and not torch.cuda.is_available():
        return "torch sees no NVIDIA GPU here, so nothing is computed in float16"
    if kind != "cpu":
        return None
    return (
        "in float16 a CPU is slow, and no more exact than in bfloat16: use dtype bfloat16 or "
        "float32, or a GPU"
    )


def eight_bits_problem(dtype: Dtype, device: str) -> str | None:
    """Why a device has no products of matrices in float8 or int8 in torch; None: it has."""
    if torch.device(device).type != "cuda":
        other = ", or dtype int8 in runtime 'openvino' or 'onnxruntime'" if _cpu(device) else ""
        return (
            f"torch computes in {dtype} on NVIDIA GPUs, not on {device}: use dtype float32 or "
            f"bfloat16{other}"
        )
    if not torch.cuda.is_available():
        return f"torch sees no NVIDIA GPU here, so nothing is computed in {dtype}"
    least = (8, 9) if dtype == "float8" else (8, 0)
    found = torch.cuda.get_device_capability(device)
    if found >= least:
        return None
    return (
        f"{torch.cuda.get_device_name(device)} has no products in {dtype}: its compute capability "
        f"is {_number(found)}, {dtype} needs {_number(least)}: use dtype float16"
    )


def _cpu(device: str) -> bool:
    return torch.device(device).type == "cpu"


def _number(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))


def bfloat16_problem(device: str) -> str | None:
    """Why a device doesn't compute in bfloat16; None: it does natively."""
    kind = torch.device(device).type
    if kind == "cuda":
        if not torch.cuda.is_available():
            return "torch sees no NVIDIA GPU here, so nothing is computed in bfloat16"
        if torch.cuda.is_bf16_supported(False):
            return None
        return (
            f"{torch.cuda.get_device_name(device)} has no products in bfloat16: use dtype float16 "
            "or float32"
        )
    if kind != "cpu" or _cpu_has_bfloat16():
        return None
    return (
        f"the processor of {device} has no products in bfloat16 (on a CPU AMX or AVX512-BF16), so "
        "it would be slow and no more exact: use dtype float32 or int8"
    )


def _cpu_has_bfloat16() -> bool:
    """Whether the CPU multiplies matrices in bfloat16, as far as the system says it."""
    if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported():
        return True
    listing = Path("/proc/cpuinfo")
    if not listing.exists():
        return False
    words = listing.read_text(encoding="utf-8", errors="replace").split()
    return not {*_FLAGS}.isdisjoint(words)
