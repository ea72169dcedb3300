"""The map from one model's images to where another model embeds the same images, in closed form.

Pure functions on tensors. Three maps are solved for, and the one that keeps most of the new model's
neighbours is taken (compare Drift-Adapter, arXiv 2509.23471, sections on orthogonal and affine
adapters):

- orthogonal: the rotation R of largest tr RᵀXᵀY, which is that of least squares (Schönemann,
  Psychometrika 1966); its rows or columns are orthonormal where the dimensions differ;
- centred: the same between X and Y without their means, and a factor: x → s (x - x̄)R + ȳ;
- ridge: ridge regression with a free intercept, damped by the leave-one-out error
  (`pruning_mechanism.ridge`).
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from cascade.searching.ranking import rank_all
from cascade.stages.mapped import Map
from pruning_mechanism.ridge import ridge

LEAST = 32
"""Images that a map can be learnt from at the very least."""
_LEFT_OUT = 4  # one image in so many decides between the maps
_DECIDES = 1000  # at most so many


def kept_by_kinds(old: Tensor, new: Tensor, k: int, seed: int = 0) -> dict[str, float]:
    """What each kind of map keeps of the new model's neighbours, on images left out of it.

    Args:
        old: float32 [n, d], at length 1.
        new: of the same images float32 [n, e], at length 1.
        k: nearest others of an image that are compared.
        seed: of which images are left out.

    Returns:
        by kind, the share in [0, 1] of an image's k nearest others by the new model that are among
        the k nearest by the map.

    Raises:
        ValueError: there are fewer than `LEAST` images.
    """
    if len(old) < LEAST:
        raise ValueError(f"{len(old)} images are too few to learn a map from: it takes {LEAST}")
    order = torch.randperm(len(old), generator=torch.Generator().manual_seed(seed))
    decides = order[: min(_DECIDES, len(old) // _LEFT_OUT)]
    rest = order[len(decides) :]
    nearest = _nearest(new[decides], new[decides], k)
    kept = {}
    for kind, solve in KINDS.items():
        mapped = solve(old[rest], new[rest])(old[decides])
        # as queries, where the new model has them: that is what will be asked
        kept[kind] = _shared(_nearest(mapped, new[decides], k), nearest)
    return kept


def orthogonal(old: Tensor, new: Tensor) -> Map:
    """The rotation of least squares, without an offset."""
    rotation, _ = _rotation(old.double(), new.double())
    return Map(rotation.float(), torch.zeros(new.shape[1]))


def centred(old: Tensor, new: Tensor) -> Map:
    """The rotation and factor of least squares between what is left without the means."""
    before, after = old.double(), new.double()
    means = before.mean(0), after.mean(0)
    rotation, overlap = _rotation(before - means[0], after - means[1])
    # of fewer dimensions than before, some of what X varies by is not seen
    seen = ((before - means[0]) @ rotation).square().sum()
    weight = rotation * (overlap / seen.clamp(min=1e-30))
    return Map(weight.float(), (means[1] - means[0] @ weight).float())


def regression(old: Tensor, new: Tensor) -> Map:
    """Ridge regression, of least leave-one-out error."""
    solved = ridge(old, new)
    return Map(solved.weight.float(), solved.intercept.float())


KINDS: Mapping[str, Callable[[Tensor, Tensor], Map]] = {
    "orthogonal": orthogonal,
    "centred": centred,
    "ridge": regression,
}
"""By name, what solves for each kind of map."""


def _rotation(before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    """R [d, e] = UVᵀ with XᵀY = USVᵀ, and tr S."""
    left, values, right = torch.linalg.svd(before.T @ after, full_matrices=False)
    return left @ right, values.sum()


def _nearest(embeddings: Tensor, queries: Tensor, k: int) -> Tensor:
    """Each image's k nearest others, int64 [n, k]; its own place is not among them."""
    own = torch.arange(len(queries))[:, None]
    found = rank_all(embeddings.contiguous(), queries.contiguous(), k + 1).positions
    columns = (found != own).byte().argsort(dim=1, descending=True, stable=True)
    return found.gather(1, columns[:, : min(k, found.shape[1] - 1)])


def _shared(one: Tensor, other: Tensor) -> float:
    """The share of each row of `other` that is in the same row of `one`, on average."""
    return (other[:, :, None] == one[:, None, :]).any(dim=2).float().mean().item()
