"""What can go wrong in compression: the error that says it, and activations that are not finite.

A NaN in a checkpoint makes moments, token weights and curves of NaN, from which a mask follows all
the same. Hence every pass over the calibration images stops at it, and names where it begins.
"""

from importlib.util import find_spec


class UserError(ValueError):
    """What the user can mend: one line that says what is wrong and what to do."""


def check_installed(package: str, extra: str) -> None:
    """Raise `UserError` if an optional package, which an extra of this project brings, is missing.

    It is looked for and not imported.
    """
    if find_spec(package) is None:
        raise UserError(f"this needs {package}: pip install 'clip-cascade[{extra}]'")


def not_finite(place: str) -> UserError:
    """The error to raise where a tower's answer at `place` is infinite or undefined."""
    return UserError(
        f"the tower's activations are not finite from {place} on: is the checkpoint damaged, or "
        "half precision too narrow for it?"
    )


def place_of(layer: int, kind: str) -> str:
    """How messages name a sublayer, or the projection above all of them."""
    return "the projection" if kind == "projection" else f"the {kind} of layer {layer}"
