"""Groups of kernels, and the share of a tower's time that each takes.

Data alone: no module that this one imports needs torch. Kernels are told by their names: those of
cuBLAS, CUTLASS, cuDNN, Triton and torch on a GPU, and torch's operators on a CPU.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Kernel:
    """A kernel's name and the seconds that it took, without those of others that it called."""

    name: str
    seconds: float


@dataclass(frozen=True)
class Shares:
    """What a tower's time goes to, in shares that add up to 1.

    Attributes:
        products: of matrices, convolutions included.
        attention: fused, or the softmax of what isn't.
        elementwise: norms, activations, sums, rounding to 8 bits, and whatever else there is.
        copies: of memory, from and to the GPU too.
        idle: no kernel runs: the processor waits for launches or for Python.
    """

    products: float
    attention: float
    elementwise: float
    copies: float
    idle: float


GROUPS = tuple(field.name for field in fields(Shares) if field.name != "idle")

_PATTERNS = (
    ("elementwise", r"^triton_(?!tem)"),  # fused: their names hold the names of all that they do
    ("attention", r"flash|fmha|sdpa|attention|softmax"),
    (
        "products",
        r"^triton_tem|gemm|gemv|nvjet|xmma|cublas|splitk|cutlass|cudnn|conv(olution|olve|2d)|nchw|nhwc|(^|:|_)(add|badd)?b?mm(_|$)|matmul|linear$"
        r"|_linear_|einsum",
    ),
    ("copies", r"memcpy|memset|copy|clone|contiguous|::to$|::cat$|catarray|transpose_"),
)
"""The first that is found in a name says the group; else it is elementwise."""


def group_of(name: str) -> str:
    """The group of a kernel or operator."""
    lower = name.lower()
    return next((group for group, said in _PATTERNS if re.search(said, lower)), "elementwise")


def shares(kernels: Iterable[Kernel], seconds: float) -> Shares | None:
    """The share of each group in the seconds of a pass; None: no kernel was seen.

    Args:
        kernels: of some passes.
        seconds: that the passes take. Should the kernels have taken longer, nothing is idle.
    """
    taken = dict.fromkeys(GROUPS, 0.0)
    for kernel in kernels:
        taken[group_of(kernel.name)] += kernel.seconds
    busy = sum(taken.values())
    if not busy:
        return None
    whole = max(busy, seconds)
    return Shares(**{group: own / whole for group, own in taken.items()}, idle=1 - busy / whole)
