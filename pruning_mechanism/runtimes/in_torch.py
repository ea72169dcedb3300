"""A vision tower in torch, as it is or compiled."""

import copy
import shutil
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pruning_mechanism.checkpoints.record import first_line
from pruning_mechanism.encoding import image_embeddings, tower_of
from pruning_mechanism.families import TowerError
from pruning_mechanism.runtimes.runtime import Dtype

TORCH_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""Those that torch computes towers in here, by their names."""


class Embedder(nn.Module):
    """A model as a function from pixels [n, 3, height, width] to embeddings [n, d]."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        """The vision tower's embeddings, not normalised."""
        return image_embeddings(self.model, pixels)


def vision_in(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """A model whose vision tower is a copy in a type; the text tower is the same, not a copy."""
    texts = [getattr(model, name, None) for name in ("text_model", "text_projection")]
    made = copy.deepcopy(model, {id(part): part for part in texts if part is not None})
    for module in tower_of(made).modules:
        module.to(dtype)
    return made


class TorchRuntime:
    """A tower as torch runs it, on the device that it is on; has the members of `Runtime`."""

    content: str | None = None

    def __init__(self, model: PreTrainedModel, dtype: Dtype, compiled: bool = False) -> None:
        """Make a runtime of a model, which is copied if it is in another type.

        Args:
            model: on its device.
            dtype: float32 or bfloat16.
            compiled: let torch.compile make one program of it for all batch sizes, which takes up
                to minutes at the first batch.
        """
        self.name = "compile" if compiled else "torch"
        self.dtype = dtype
        kind = TORCH_DTYPES[dtype]
        vision = next(tower_of(model).modules[0].parameters())
        self._embedder: Any = Embedder(model if vision.dtype == kind else vision_in(model, kind))
        self._embedder.eval().requires_grad_(False)
        self._device, self._kind = vision.device, kind
        if compiled:
            self._embedder = torch.compile(self._embedder, dynamic=True)

    @torch.no_grad()  # what inference mode makes, a compiled program may not take again
    def embed(self, pixels: Tensor) -> Tensor:
        """The embeddings [n, d], not normalised, of pixels [n, 3, height, width].

        Raises:
            TowerError: torch.compile can't make a program of the tower.
        """
        given = pixels.to(self._device, self._kind)
        try:
            embeddings: Tensor = self._embedder(given)
        except RuntimeError as error:
            if self.name != "compile" or not _of_compiler(error):
                raise
            raise TowerError(
                f"torch.compile can't make a program of this tower ({first_line(error)}): load it "
                "with another runtime, such as 'torch'"
            ) from error
        return embeddings


def _of_compiler(error: RuntimeError) -> bool:
    """Whether torch.compile raised an error, rather than the program that it made."""
    from torch._dynamo.exc import TorchDynamoException  # slow to import, and there by now

    return isinstance(error, TorchDynamoException)


def compiler_problem() -> str | None:
    """Why torch.compile can't make programs for the CPU here; None: it can."""
    if any(map(shutil.which, ("c++", "g++", "clang++", "clang", "gcc"))):
        return None
    return "runtime 'compile' needs a C++ compiler, such as g++, which is not installed here"
