"""A vision tower in torch, as it is or compiled."""

import copy
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pruning_mechanism.checkpoints.record import first_line
from pruning_mechanism.encoding import image_embeddings, tower_of
from pruning_mechanism.families import TowerError
from pruning_mechanism.runtimes.compiling import of_compiler, program_of
from pruning_mechanism.runtimes.on_gpu.exact import exact_convolutions
from pruning_mechanism.runtimes.on_gpu.replaying import Replayed
from pruning_mechanism.runtimes.on_gpu.towers import fill_up, in_eight_bits
from pruning_mechanism.runtimes.runtime import Dtype

TORCH_DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float8": torch.bfloat16,
    "int8": torch.bfloat16,
}
"""What torch has a tower in, by what it computes in: around products in 8 bits bfloat16."""


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
    """A tower as torch runs it, on the device that it is on; has the members of `Runtime`.

    Any thread may embed. On a GPU a compiled one is replayed as CUDA graphs.

    Attributes:
        left: in 8 bits, the products of the tower's layers that are in bfloat16, by name.
        rounded: those in 8 bits.
    """

    def __init__(self, model: PreTrainedModel, dtype: Dtype, compiled: bool = False) -> None:
        """Make a runtime of a model, which is copied if it is in another type.

        Args:
            model: on its device.
            dtype: that the device computes in; in 8 bits compiled, or rounding takes longer than
                it saves.
            compiled: let torch.compile make one program of it for all batch sizes, which takes up
                to minutes at the first batch.

        Raises:
            TowerError: no product of the tower can be computed in 8 bits.
        """
        self.name = "compile" if compiled else "torch"
        self.dtype = dtype
        self.content: str | None = None
        self.left, self.rounded = tuple[str, ...](), tuple[str, ...]()
        vision = next(tower_of(model).modules[0].parameters())
        self._device, self._kind = vision.device, TORCH_DTYPES[dtype]
        if dtype == "float8" or dtype == "int8":
            made = in_eight_bits(model, vision_in(model, self._kind), dtype)
            own, self.content = made.model, made.content
            self.left, self.rounded = made.left, made.rounded
        else:
            own = model if vision.dtype == self._kind else vision_in(model, self._kind)
            if own is not model and self._device.type == "cuda":
                fill_up(own)
        self._embedder: Any = Embedder(own)
        self._embedder.eval().requires_grad_(False)
        self._replayed: Replayed | None = None
        if compiled:
            self._compile()

    def _compile(self) -> None:
        self._embedder = program_of(self._embedder)
        if self._device.type == "cuda":
            self._replayed = Replayed(self._embedder, self._device)

    def _exactly(self) -> AbstractContextManager[None]:
        exact = self._device.type == "cuda" and self._kind == torch.float32
        return exact_convolutions() if exact else nullcontext()

    @torch.no_grad()  # what inference mode makes, a compiled program may not take again
    def embed(self, pixels: Tensor) -> Tensor:
        """The embeddings [n, d], not normalised, of pixels [n, 3, height, width].

        Raises:
            TowerError: torch.compile can't make a program of the tower.
        """
        try:
            with self._exactly():
                if self._replayed is not None:
                    return self._replayed(pixels, self._kind)
                embeddings: Tensor = self._embedder(pixels.to(self._device, self._kind))
        except RuntimeError as error:
            if self.name != "compile" or not of_compiler(error):
                raise
            raise TowerError(
                f"torch.compile can't make a program of this tower ({first_line(error)}): load it "
                "with another runtime, such as 'torch'"
            ) from error
        return embeddings
