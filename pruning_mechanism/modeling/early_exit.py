"""Early exit: the embedding is read off after fewer layers; part of every checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .checks import check_range
from .pruned_layers import FamilyModule
from .token_rule import TokenRule, TowerSizes


@dataclass(frozen=True)
class EarlyExit(TokenRule):
    """Keep the first `layers` layers; `dense_layers` is how many the tower had before.

    How many there are now is the `num_hidden_layers` of every configuration.
    """

    dense_layers: int | None = None

    @classmethod
    def settings(cls) -> tuple[str, ...]:
        """How many layers stay."""
        return ("layers",)

    @classmethod
    def entries(cls, config: TowerSizes, **asked: Any) -> dict[str, Any]:
        """Fewer layers, and how many there were at first."""
        layers, most = asked["layers"], config.num_hidden_layers
        if not 1 <= layers <= most:
            raise ValueError(f"an exit after layer {layers}: the tower has {most} layers")
        dense = getattr(config, "dense_layers", None) or most
        return {"num_hidden_layers": layers, "dense_layers": dense}

    def check(self, config: TowerSizes, beside: Sequence[TokenRule]) -> None:
        """Refuse a tower that had fewer layers before than it has now."""
        check_range("dense_layers", self.dense_layers, config.num_hidden_layers)

    def dense_sizes(self) -> dict[str, int]:
        """The number of layers at first."""
        return {} if self.dense_layers is None else {"num_hidden_layers": self.dense_layers}

    def fit(self, root: FamilyModule, config: TowerSizes) -> None:
        """Leave out the layers above the exit."""
        root.encoder.layers = root.encoder.layers[: config.num_hidden_layers]
