"""Where a checkpoint lies on this machine, if a library's name of it stands before its place."""

from pathlib import Path

LIBRARY = "open_clip:"
"""What the names of a library's models begin with; a file or a directory may follow."""


def place_of(name: str | Path) -> tuple[str, str]:
    """What stands before the place, and the place: all of a name that no library's begins with.

    `open_clip:ViT-B-32:weights.safetensors` is `open_clip:ViT-B-32:` and `weights.safetensors`.
    """
    text = str(name)
    if not text.startswith(LIBRARY):
        return "", text
    rest = text.removeprefix(LIBRARY)
    model, colon, weights = rest.partition(":")
    if not colon or Path(rest).expanduser().exists():
        return LIBRARY, rest
    return f"{LIBRARY}{model}:", weights
