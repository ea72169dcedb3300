"""The residual streams of towers on a batch: what repair and curves go up the layers with.

Between calibration and least squares. Repair takes two towers up at once: targets come off the
dense one's stream, features off the smaller one's.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from compress.calibrating.calibration import Batch
from compress.calibrating.token_weights import TokenPlaces, TokenWeights
from pruning_mechanism import Tower
from pruning_mechanism.tower import Inputs


@dataclass
class Stream:
    """The residual stream [b, n, d] of one batch in a tower.

    `inputs` are what projections ask for: tokens. Pixels, which none does, aren't held.
    """

    hidden: Tensor
    places: TokenPlaces
    inputs: Inputs | None

    @classmethod
    def start(cls, tower: Tower, batch: Batch) -> "Stream":
        """What enters the first layer."""
        inputs = batch.inputs(tower.kind)
        hidden = tower.embed(inputs)
        places = TokenPlaces.of(tower, inputs, hidden)
        return cls(hidden, places, inputs if isinstance(inputs, Mapping) else None)

    def weights(self, of_tokens: TokenWeights) -> Tensor:
        """The weight of each token of the batch, [b, n]."""
        return of_tokens.spread(self.places)


@dataclass
class Streams:
    """The residual streams of one batch in a dense tower and in a smaller one."""

    dense: Stream
    smaller: Stream

    @classmethod
    def start(cls, dense: Tower, smaller: Tower, batch: Batch) -> "Streams":
        """What enters the first layers."""
        return cls(Stream.start(dense, batch), Stream.start(smaller, batch))
