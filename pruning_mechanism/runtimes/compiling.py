"""torch.compile: whether it can make programs here, and a limit of it that is lifted."""

import shutil
from collections.abc import Callable

import torch
from torch import Tensor, nn

PROGRAMS = 10_000
"""Programs that torch.compile may make of towers in one process; beyond its own limit, which is of
towers taken together, it would run further ones as they are, without a word."""


def program_of(tower: nn.Module) -> Callable[[Tensor], Tensor]:
    """A tower as one program for all batch sizes, made at the first batch, which takes minutes."""
    program = torch.compile(tower, dynamic=True)

    def within_limit(pixels: Tensor) -> Tensor:
        limits = {"recompile_limit": PROGRAMS, "accumulated_recompile_limit": PROGRAMS}
        with torch._dynamo.config.patch(limits):
            embeddings: Tensor = program(pixels)
        return embeddings

    return within_limit


def of_compiler(error: RuntimeError) -> bool:
    """Whether torch.compile raised an error, rather than the program that it made."""
    from torch._dynamo.exc import TorchDynamoException  # slow to import, and there by now

    return isinstance(error, TorchDynamoException)


def compiler_problem() -> str | None:
    """Why torch.compile can't make programs for the CPU here; None: it can."""
    if any(map(shutil.which, ("c++", "g++", "clang++", "clang", "gcc"))):
        return None
    return "runtime 'compile' needs a C++ compiler, such as g++, which is not installed here"
