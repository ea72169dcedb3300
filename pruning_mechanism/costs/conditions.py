"""What measured seconds are true of, and how to bring a tower into a state to be measured in.

Shared by latency tables and by the choice of an attention implementation.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pruning_mechanism.cost import Shape
from pruning_mechanism.costs.processor import processor_name
from pruning_mechanism.tower import Tower, vision_config


@dataclass(frozen=True)
class Conditions:
    """What a table was measured on, as far as seconds depend on it.

    `processor` names the CPU or GPU, `threads` are those torch computes with on the CPU, and
    `runtime` is the program that ran the tower.
    """

    processor: str
    device: str
    dtype: str
    threads: int
    batch_size: int
    tokens: float
    hidden: int
    head_dim: int
    torch: str
    repetitions: int
    runtime: str = "torch"


def noise_pixels(model: PreTrainedModel, batch_size: int) -> Tensor:
    """A batch of noise that the tower takes for images."""
    vision, weight = vision_config(model.config), next(model.parameters())
    size = (batch_size, vision.num_channels, vision.image_size, vision.image_size)
    noise = torch.randn(size, generator=torch.Generator().manual_seed(0))
    return noise.to(weight)


def conditions_of(model: PreTrainedModel, batch_size: int, repetitions: int) -> Conditions:
    """What a measurement of a model's vision tower, here and now, is true of."""
    shape, weight = Shape.of(model.config), next(model.parameters())
    return Conditions(
        processor=processor_name(weight.device),
        device=weight.device.type,
        dtype=str(weight.dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
        batch_size=batch_size,
        tokens=shape.tokens,
        hidden=shape.hidden,
        head_dim=shape.head_dim,
        torch=torch.__version__,
        repetitions=repetitions,
    )


def computed_in_full(model: PreTrainedModel) -> PreTrainedModel:
    """The same model, its last layer computed for all tokens: it is watched; tensors are shared."""
    shared = {id(part): part for part in (*model.parameters(), *model.buffers())}
    copied: PreTrainedModel = copy.deepcopy(model, shared)
    Tower.of(copied).root.encoder.layers[-1].register_forward_hook(_seen)
    return copied


def _seen(*_: object) -> None:
    """A forward hook that changes nothing."""


def settle_memory() -> None:
    """Keep the seconds of large activations from depending on what this process did before.

    glibc hands freed memory back to the system, and pays to get it again, above a threshold that
    rises to the largest block freed so far, up to 32 MiB. Before such a block has come by, the
    12 x 192-wide tower takes a quarter longer at a batch of 16, and its pruned towers do not.
    """
    torch.empty(31 << 20, dtype=torch.uint8)
