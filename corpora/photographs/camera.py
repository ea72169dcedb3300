"""How photographs are made: what a camera is set to, and what became of its files since."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from corpora.problems import CorpusError

Aspect: TypeAlias = Literal["nearest", "4:3", "3:2"]
ASPECTS = {"4:3": 4 / 3, "3:2": 3 / 2}
"""Long edge / short edge of a camera's pictures."""


@dataclass(frozen=True)
class Camera:
    """How photographs are made.

    Attributes:
        pixels: of a camera's picture.
        aspect: long edge / short edge of a camera's picture: "nearest" is that of the two that
            is nearer to the picture's own. The whole picture is in the middle: see `framed`.
        noise: as in `sensor.enlarged`; 5 makes files of 2 to 6 MB of 12 million pixels.
        thumbnail: long edge of a camera's thumbnail.
        letterbox: thumbnails are 4:3 whatever the picture is, with black bars: DCF has it so.
        absent: share of a camera's files without a thumbnail.
        stale: share with a thumbnail that shows the picture before it was edited.
        preview: share with a larger preview behind the picture.
        web: share of web-sized files instead of a camera's.
        web_edge: long edge of web-sized files.
    """

    pixels: int = 12_000_000
    aspect: Aspect = "nearest"
    noise: float = 5.0
    thumbnail: int = 160
    letterbox: bool = True
    absent: float = 0.1
    stale: float = 0.05
    preview: float = 0.0
    web: float = 0.0
    web_edge: int = 500

    def __post_init__(self) -> None:
        """Raise CorpusError if no photograph can be made so."""
        for name in ("absent", "stale", "preview", "web"):
            if not 0 <= getattr(self, name) <= 1:
                raise CorpusError(f"{name} is a share, from 0 to 1, not {getattr(self, name)}")
        if self.absent + self.stale > 1:
            raise CorpusError(
                f"{self.absent} of the files without a thumbnail and {self.stale} with a stale one "
                "are more than all files"
            )
        if self.noise < 0 or not np.isfinite(self.noise):
            raise CorpusError(f"noise is a standard deviation, 0 or more, not {self.noise}")
        for name, least in (("pixels", 1024), ("thumbnail", 16), ("web_edge", 16)):
            if getattr(self, name) < least:
                raise CorpusError(f"{name} must be at least {least}, not {getattr(self, name)}")

    def size(self, ratio: float) -> tuple[int, int]:
        """Width and height of a picture that lies across, given long edge / short edge."""
        width = max(16, 16 * round((self.pixels * ratio) ** 0.5 / 16))
        return width, max(1, round(width / ratio))
