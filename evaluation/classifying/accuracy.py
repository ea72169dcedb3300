"""How well images are classified: top-k, by class, confusions, and behind a first stage.

Pure functions of scores [images, classes]. Ties count against the model, as in
`evaluation.retrieval`: a class that scores as high as the right one stands before it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from evaluation.retrieval import ranks

_SCORES_AT_ONCE = 1 << 23  # 64 MB of float64


@dataclass(frozen=True)
class Space:
    """Images [N, d] and classes [C, d] as one stage embeds them."""

    images: Tensor
    classes: Tensor

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """The scores of a block of images at a time: where they are, and float64 [b, C]."""
        rows = max(1, _SCORES_AT_ONCE // len(self.classes))
        classes = self.classes.double().T
        for start in range(0, len(self.images), rows):
            block = slice(start, start + rows)
            yield block, self.images[block].double() @ classes


@dataclass(frozen=True)
class Answers:
    """What a stage makes of each image: the rank of its class (0 is best), the class it predicts.

    Both are int64 [N]. A prediction is the image's own class if and only if its rank is 0.
    """

    ranks: Tensor
    predicted: Tensor


def answers(space: Space, labels: Tensor) -> Answers:
    """Classify images whose classes are known.

    Args:
        space: of one stage.
        labels: int64 [N], the class of each image.

    Raises:
        ValueError: there is no image, or a label isn't one of the classes.
    """
    parts = [judged(scores, labels[block]) for block, scores in space.blocks()]
    if not parts:
        raise ValueError("there is no image to classify")
    return Answers(
        torch.cat([part.ranks for part in parts]), torch.cat([part.predicted for part in parts])
    )


def judged(scores: Tensor, labels: Tensor) -> Answers:
    """Ranks and predictions from scores [N, C]; see `answers`."""
    place = ranks(scores, labels)
    others = _without(scores, labels).argmax(dim=1)
    return Answers(place, torch.where(place == 0, labels, others))


def reranked(first: Space, full: Space, labels: Tensor, m: int) -> Tensor:
    """Whether images are classified right if a stage hands its m best classes to the full tower.

    Args:
        first: of the stage.
        full: of the full tower, with the same images and classes.
        labels: int64 [N].
        m: classes handed on, at least 1.

    Returns:
        bool [N].
    """
    blocks = zip(first.blocks(), full.blocks(), strict=True)
    return torch.cat(
        [
            right_behind(scores, full_scores, labels[block], m)
            for (block, scores), (_, full_scores) in blocks
        ]
    )


def right_behind(scores: Tensor, full_scores: Tensor, labels: Tensor, m: int) -> Tensor:
    """`reranked` from the scores [N, C] of both.

    An image is right if its class is among the m and the full tower scores no other of them as
    high.
    """
    handed_on = ranks(scores, labels) < m
    if m == 1:
        return handed_on
    rivals = _without(scores, labels).topk(min(m, scores.shape[1]) - 1, dim=1).indices
    own = full_scores.gather(1, labels[:, None])
    return handed_on & (full_scores.gather(1, rivals) < own).all(dim=1)


def confusion(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """How many images of each class (rows) were taken for each class (columns): int64 [C, C]."""
    pairs = torch.bincount(labels * classes + predicted, minlength=classes**2)
    return pairs.view(classes, classes)


def per_class(matrix: Tensor) -> Tensor:
    """Top-1 accuracy of each class in percent: float64 [C], NaN for a class without images.

    Args:
        matrix: int64 [C, C], as `confusion` gives it.
    """
    return 100 * matrix.diagonal().double() / matrix.sum(dim=1)


def mean_per_class(matrix: Tensor) -> float:
    """The mean of `per_class` over the classes that have images, in percent."""
    return float(per_class(matrix).nanmean())


def classes_handed_on(m: int, classes: int) -> int:
    """How many classes a stage hands on: m, or half of them where there are no more than m.

    All of them would say nothing of the stage.
    """
    return m if m < classes else max(1, (classes + 1) // 2)


def _without(scores: Tensor, labels: Tensor) -> Tensor:
    """The scores [N, C] of all other classes; the image's own comes last."""
    return scores.scatter(1, labels[:, None], float("-inf"))
