"""The residual streams of two towers on the same batch: the dense one's, and a smaller one's.

What repair and curves go up the layers with, between calibration and least squares: targets come
off the dense stream, features off the other.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from compress.calibrating.calibration import Batch
from compress.calibrating.token_weights import TokenPlaces, TokenWeights
from pruning_mechanism import Tower
from pruning_mechanism.tower import Inputs


@dataclass
class Streams:
    """The residual streams [b, n, d] of one batch: the dense tower's, and the current one's.

    `inputs` are what projections ask for: tokens. Pixels, which none does, aren't held.
    """

    dense: Tensor
    current: Tensor
    places: TokenPlaces
    inputs: Inputs | None

    @classmethod
    def start(cls, dense: Tower, current: Tower, batch: Batch) -> "Streams":
        """What enters the first layers; one tensor if the towers are the same."""
        inputs = batch.inputs(dense.kind)
        stream = dense.embed(inputs)
        other = stream if current is dense else current.embed(inputs)
        places = TokenPlaces.of(dense, inputs, stream)
        return cls(stream, other, places, inputs if isinstance(inputs, Mapping) else None)

    def first(self, images: int) -> Inputs | None:
        """The inputs of the first images of the batch."""
        if self.inputs is None:
            return None
        return {name: rows[:images] for name, rows in self.inputs.items()}

    def weights(self, of_tokens: TokenWeights) -> Tensor:
        """The weight of each token of the batch, [b, n]."""
        return of_tokens.spread(self.places)
