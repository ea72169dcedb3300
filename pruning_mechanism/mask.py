"""Which heads, neurons and head dimensions of a tower stay.

A mask is all that passes between a rule, which decides, and surgery, which cuts.
"""

from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pruning_mechanism.checkpoints.weights import write_tensors
from pruning_mechanism.cost import Shape
from pruning_mechanism.families import TowerError, TowerKind, tower_config
from pruning_mechanism.protocols import Config


@dataclass(frozen=True, eq=False)
class Mask:
    """Which parts of a tower stay, True = keep: heads `bool[L, H]` and neurons `bool[L, F]`.

    `qk_dims` and `value_dims` `bool[L, h]` say which dimensions the queries and keys, and the
    values, of all heads of a layer keep, h being the dense head dimension; None: all of them. A
    layer that keeps a head keeps at least one of each: without queries and keys its attention would
    be uniform, without values it would be nothing.
    """

    heads: Tensor
    neurons: Tensor
    qk_dims: Tensor | None = None
    value_dims: Tensor | None = None

    def __post_init__(self) -> None:
        for name, tensor in self.tensors.items():
            if tensor.dtype != torch.bool or tensor.ndim != 2:
                raise ValueError(
                    f"{name} must be a boolean [layers, {name}] tensor, "
                    f"found {tensor.dtype} {list(tensor.shape)}"
                )
            if len(tensor) != len(self.heads):
                raise ValueError(
                    f"heads have {len(self.heads)} layers, but {name} have {len(tensor)}"
                )
            if name.endswith("dims"):
                empty = (self.heads.any(1) & ~tensor.any(1)).nonzero().flatten().tolist()
                if empty:
                    raise ValueError(f"layer {empty[0]} keeps heads, but none of their {name}")

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What the mask consists of, by name."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: tensor for name, tensor in found.items() if tensor is not None}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mask):
            return NotImplemented
        mine, theirs = self.tensors, other.tensors
        return mine.keys() == theirs.keys() and all(
            torch.equal(tensor, theirs[name]) for name, tensor in mine.items()
        )

    __hash__ = None  # type: ignore[assignment]  # as Python has it for what can't be hashed

    def __and__(self, other: "Mask") -> "Mask":
        """What both keep, of the same tower."""
        mine, theirs = self.tensors, other.tensors
        both = {name: mine[name] & theirs[name] for name in mine.keys() & theirs.keys()}
        return Mask(**(mine | theirs | both))

    @classmethod
    def dense(cls, config: Config, tower: TowerKind = "vision") -> "Mask":
        """The mask that keeps everything of a tower, given a whole model's or its configuration."""
        own = tower_config(config, tower)
        layers = own.num_hidden_layers
        return cls(
            torch.ones(layers, own.num_attention_heads, dtype=torch.bool),
            torch.ones(layers, own.intermediate_size, dtype=torch.bool),
        )

    def shape(self, config: Config, tower: TowerKind = "vision") -> Shape:
        """The shape of `config`'s tower once this mask is cut out of it."""
        shape = Shape.of(config, tower=tower)
        widths = {name: tensor.sum(1).tolist() for name, tensor in self.tensors.items()}
        every = [shape.head_dim] * len(self.heads)
        return shape.keep(
            widths["heads"],
            widths["neurons"],
            widths.get("qk_dims", every),
            widths.get("value_dims", every),
        )

    def mac_fraction(self, config: Config, tower: TowerKind = "vision") -> float:
        """Kept MACs / dense MACs of the encoder layers of `config`'s tower."""
        dense = Shape.of(config, dense=True, tower=tower)
        return self.shape(config, tower).encoder_macs / dense.encoder_macs

    def check(self, config: Config, tower: TowerKind = "vision") -> None:
        """Raise `ValueError` unless this mask fits the tower that `config` describes."""
        dense = Mask.dense(config, tower)
        own = tower_config(config, tower)
        dims = [len(dense.heads), own.hidden_size // own.num_attention_heads]
        sizes = {"heads": list(dense.heads.shape), "neurons": list(dense.neurons.shape)}
        for name, tensor in self.tensors.items():
            found, expected = list(tensor.shape), sizes.get(name, dims)
            if found != expected:
                raise ValueError(f"the mask's {name} are {found}, the tower's {expected}")

    def save(self, path: str | Path) -> None:
        """Write the tensors that there are to a safetensors file."""
        write_tensors(self.tensors, path)

    @classmethod
    def load(cls, path: str | Path) -> "Mask":
        """Read a mask; any numeric type does, non-zero = keep.

        Raises:
            TowerError: the file isn't there or holds no `heads` and `neurons`.
        """
        try:
            tensors = load_file(path)
            dims = [tensors.get(name) for name in ("qk_dims", "value_dims")]
            return cls(
                tensors["heads"] != 0,
                tensors["neurons"] != 0,
                *(None if tensor is None else tensor != 0 for tensor in dims),
            )
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise TowerError(
                f"{path} is not a mask (a safetensors file with `heads` and `neurons`): {error}"
            ) from error
