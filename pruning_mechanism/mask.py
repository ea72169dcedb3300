"""Which heads and neurons of a tower stay.

A mask is all that passes between a rule, which decides, and surgery, which cuts.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pruning_mechanism.cost import Shape
from pruning_mechanism.tower import TowerError, vision_config


@dataclass(frozen=True, eq=False)
class Mask:
    """Heads `bool[L, H]` and neurons `bool[L, F]` of a tower, True = keep."""

    heads: Tensor
    neurons: Tensor

    def __post_init__(self):
        for name in ("heads", "neurons"):
            tensor = getattr(self, name)
            if tensor.dtype != torch.bool or tensor.ndim != 2:
                raise ValueError(
                    f"{name} must be a boolean [layers, {name}] tensor, "
                    f"found {tensor.dtype} {list(tensor.shape)}"
                )
        if len(self.heads) != len(self.neurons):
            raise ValueError(
                f"heads have {len(self.heads)} layers, but neurons {len(self.neurons)}"
            )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mask):
            return NotImplemented
        return torch.equal(self.heads, other.heads) and torch.equal(self.neurons, other.neurons)

    __hash__ = None

    @classmethod
    def dense(cls, config) -> "Mask":
        """The mask that keeps everything of a CLIP or CLIP vision configuration."""
        vision = vision_config(config)
        layers = vision.num_hidden_layers
        return cls(
            torch.ones(layers, vision.num_attention_heads, dtype=torch.bool),
            torch.ones(layers, vision.intermediate_size, dtype=torch.bool),
        )

    def shape(self, config) -> Shape:
        """The shape of `config`'s tower once this mask is cut out of it."""
        return Shape.of(config).keep(self.heads.sum(1).tolist(), self.neurons.sum(1).tolist())

    def mac_fraction(self, config) -> float:
        """Kept MACs / dense MACs of the encoder layers of `config`'s tower."""
        return self.shape(config).encoder_macs / Shape.of(config, dense=True).encoder_macs

    def check(self, config) -> None:
        """Raise `ValueError` unless this mask fits the tower that `config` describes."""
        dense = Mask.dense(config)
        for name in ("heads", "neurons"):
            found, expected = getattr(self, name).shape, getattr(dense, name).shape
            if found != expected:
                raise ValueError(
                    f"the mask's {name} are {list(found)}, the tower's {list(expected)}"
                )

    def save(self, path: str | Path) -> None:
        """Write `heads` and `neurons` to a safetensors file."""
        save_file({"heads": self.heads.contiguous(), "neurons": self.neurons.contiguous()}, path)

    @classmethod
    def load(cls, path: str | Path) -> "Mask":
        """Read a mask; any numeric type does, non-zero = keep.

        Raises:
            TowerError: the file isn't there or holds no `heads` and `neurons`.
        """
        try:
            tensors = load_file(path)
            return cls(tensors["heads"] != 0, tensors["neurons"] != 0)
        except (FileNotFoundError, SafetensorError, KeyError) as error:
            raise TowerError(
                f"{path} is not a mask (a safetensors file with `heads` and `neurons`): {error}"
            ) from error
