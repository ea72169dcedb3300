"""Where a tower's activations stop being finite, for the error that names the place.

Every pass over the calibration images asks when it meets a value that isn't finite.
"""

from torch import Tensor

from compress.errors import place_of
from pruning_mechanism import Tower


def first_break(tower: Tower, hidden: Tensor) -> str:
    """The first place where a stream [b, n, d] that enters the tower's layers is not finite.

    It is the projection if none of the sublayers is to blame.
    """
    if not hidden.isfinite().all():
        return {"vision": "the patch embedding", "text": "the token embedding"}[tower.kind]
    for part in tower.sublayers:
        hidden = part(hidden)
        if not hidden.isfinite().all():
            return place_of(part.layer, part.kind)
    return "the projection"
