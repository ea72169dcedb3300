"""How much one request may ask for, and how many may at once."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Limits of a server.

    Attributes:
        body: bytes of a request.
        pixels: of an image that is sent.
        text: characters of a query.
        parts: texts that are not wanted, or examples, of a query.
        k: hits.
        m: candidates.
        thumbnail: pixels of a thumbnail's longer edge.
        file: bytes of an image that is given out.
        refining: seconds for which the background may be asked to encode.
        at_once: requests that are worked on at the same time; others are told to come again.
        seconds: until a request is given up.
    """

    body: int = 32_000_000
    pixels: int = 50_000_000
    text: int = 1000
    parts: int = 8
    k: int = 1000
    m: int = 1000
    thumbnail: int = 1024
    file: int = 64_000_000
    refining: float = 31 * 24 * 3600.0
    at_once: int = 16
    seconds: float = 60.0
