"""Checks of single entries of a tower's configuration; part of every checkpoint.

Each raises `ValueError`, in one line that names the entry, says what it must be and what was found.
"""

import math
from typing import TypeGuard


def check_per_layer(name: str, given: object, layers: int, most: int) -> None:
    """Refuse what isn't one whole number from 0 to `most` for each layer; None is fine."""
    if given is None:
        return
    if not isinstance(given, (list, tuple)):
        raise ValueError(f"{name} takes {layers} numbers, found {short(given)}")
    if len(given) != layers:
        raise ValueError(f"the tower has {layers} layers, but {name} has {len(given)} entries")
    for number in given:
        if not is_whole(number) or not 0 <= number <= most:
            raise ValueError(
                f"{name} takes {layers} numbers from 0 on, up to {most}, found {short(number)}"
            )


def check_range(
    name: str, value: object, least: int, most: int | None = None, required: bool = False
) -> None:
    """Refuse what isn't a whole number in a range; None is fine unless the entry is required."""
    if value is None and not required:
        return
    if not is_whole(value) or value < least or (most is not None and value > most):
        raise ValueError(f"{name} must be a whole number from {least} on, found {short(value)}")


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Refuse what is none of the choices; None is fine."""
    if value not in (None, *choices):
        raise ValueError(f"{name} is one of {choices}, found {short(value)}")


def check_cuttable(size: object, patch: int) -> None:
    """Refuse a side of images, in pixels, that isn't a multiple of the patch size."""
    if not is_whole(size) or size < patch or size % patch:
        raise ValueError(
            f"images of {short(size)} pixels can't be cut into patches of {patch}: the side must "
            "be a multiple"
        )


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number, and no truth value."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a finite number, and no truth value."""
    return is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def short(value: object) -> str:
    """A value as it is written in Python, cut to fit into a message."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
