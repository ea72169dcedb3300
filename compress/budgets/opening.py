"""What a share of all seconds from file to embedding leaves to the encoder, and back.

Stands between a latency constraint on a person's own files and the search, which spends the
encoder's seconds: what it takes to open and prepare a file is spent before a tower begins.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Outlay:
    """Seconds an image of a way to read files, and of the full tower, whose files are read in full.

    Shares are of what the full tower takes from file to embedding. By default opening a file costs
    nothing, so that they are of its encoder alone.

    Attributes:
        opening: from a file to pixels, as it is to be read for the smaller tower.
        full_opening: as it is read for the full tower.
        full_encoding: from pixels to an embedding, by the full tower.
    """

    opening: float = 0.0
    full_opening: float = 0.0
    full_encoding: float = 1.0

    @property
    def full(self) -> float:
        """Seconds of the full tower from file to embedding."""
        return self.full_opening + self.full_encoding

    @property
    def least(self) -> float:
        """The share that opening takes alone; no tower has less."""
        return self.share(0.0)

    def share(self, of_encoder: float) -> float:
        """The share of all seconds, where the encoder takes a share of the full encoder's."""
        return (self.opening + of_encoder * self.full_encoding) / self.full

    def of_encoder(self, share: float) -> float:
        """The share of the full encoder's seconds that a share of all leaves; perhaps below 0."""
        return (share * self.full - self.opening) / self.full_encoding
