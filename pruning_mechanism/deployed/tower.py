"""A vision tower in the runtime and the type that it will run in, made to be timed.

Above `runtimes`. What is made here is gone once it is timed, so no export is kept; and int8 is
calibrated on noise, since what it rounds to changes nothing in its seconds. What an export leaves
in float32 (`int8.rounding`) is in int8 here: noise can't say which products those would be.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pruning_mechanism.checkpoints.checkpoint import in_dtype
from pruning_mechanism.costs.conditions import noise_pixels
from pruning_mechanism.encoding import image_embeddings
from pruning_mechanism.families import TowerError
from pruning_mechanism.runtimes.formats import Format
from pruning_mechanism.runtimes.graph import write_onnx
from pruning_mechanism.runtimes.in_torch import TORCH_DTYPES, TorchRuntime
from pruning_mechanism.runtimes.int8 import closing
from pruning_mechanism.runtimes.int8.quantising import close, quantise
from pruning_mechanism.runtimes.runtime import Dtype, Runtime
from pruning_mechanism.runtimes.table import RUNTIMES, check_known

NOISE_IMAGES = 1
"""Images of noise that int8 is calibrated on where only its seconds matter."""


@dataclass(frozen=True, eq=False)
class Deployed:
    """A vision tower and where it will run.

    Attributes:
        model: a CLIP or its vision tower; on the CPU and in float32 unless torch runs it.
        runtime: as `runtimes.table` has it.
        dtype: what it computes in; None: the model's own type in torch, float32 elsewhere.
    """

    model: PreTrainedModel
    runtime: str = "torch"
    dtype: Dtype | None = None

    @property
    def in_torch(self) -> bool:
        """Whether torch runs it layer by layer, so that each layer can be timed in its place."""
        return self.runtime == "torch"

    @property
    def kind(self) -> Dtype:
        """What it computes in where that isn't the model's own type."""
        return self.dtype or "float32"

    @property
    def in_its_type(self) -> PreTrainedModel:
        """The model in the type that torch runs it in."""
        return self.model if self.dtype is None else in_dtype(self.model, TORCH_DTYPES[self.dtype])

    def like(self, model: PreTrainedModel) -> "Deployed":
        """Another tower in the same place."""
        return replace(self, model=model)

    def noise(self, batch_size: int) -> Tensor:
        """A batch of noise that the tower takes for images."""
        return noise_pixels(self.model, batch_size)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @cached_property
    def embed(self) -> Callable[[Tensor], Tensor]:
        """Pixels [n, 3, height, width] → embeddings [n, d], not normalised; made at first use.

        Raises:
            TowerError: this machine can't do it, or the runtime can't say what the tower does.
        """
        row = RUNTIMES[self.runtime]
        row.check(self.kind, str(self.device))
        if self.in_torch and self.dtype is None:
            return partial(_plain, self.model)
        with torch.inference_mode(False):  # a graph is made of tensors that inference mode forbids
            if row.form is not None:
                return _opened(self.model, row.form, self.kind).embed
            return TorchRuntime(self.model, self.kind, compiled=not self.in_torch).embed


def check_deployable(runtime: str, dtype: str | None, device: str = "cpu") -> None:
    """Raise `TowerError` unless towers can be put into a runtime and a type here.

    To be called before anything is loaded.
    """
    check_known(runtime, dtype, device)
    if runtime == "compile" and dtype in ("float8", "int8"):
        raise TowerError(
            f"seconds in {dtype} by {runtime!r} can't be predicted: in a latency table's small "
            "towers products are too narrow for it: use dtype bfloat16, and compare the result by "
            f"evaluation.runtimes --runtimes {runtime}:{dtype}"
        )
    form = RUNTIMES[runtime].form
    if form is not None:
        form.check_made(next((kind for kind in form.dtypes if kind == dtype), "float32"))


@torch.inference_mode()
def _plain(model: PreTrainedModel, pixels: Tensor) -> Tensor:
    return image_embeddings(model, pixels)


def _opened(model: PreTrainedModel, form: Format, dtype: Dtype) -> Runtime:
    """A tower's graph in the program that runs it; its files are gone once it is loaded."""
    form.check_made(dtype)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        graph, directory = Path(place) / "graph" / "model.onnx", Path(place) / form.name
        graph.parent.mkdir()
        directory.mkdir()
        if dtype == "int8":
            before, own = closing.split(model)
            write_onnx(before, graph)
            quantise(graph, noise_pixels(model, NOISE_IMAGES))
            close(graph, own)
        else:
            write_onnx(model, graph)
        form.write(graph, directory)
        return form.open(directory, dtype)
