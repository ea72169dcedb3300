"""From class names and templates to a classifier: one embedding for each class, of texts alone.

As in CLIP's paper (arXiv 2103.00020, section 3.1.4): each name is put into each template, the
normalised embeddings of these texts are averaged, and the mean is normalised again. An image is of
the class whose embedding its own is nearest to.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize
from tqdm import tqdm

PLACES = ("{c}", "{}")
"""Where a template has the name of the class: as clip-benchmark and as open_clip write it."""

_TEXTS_AT_ONCE = 1024

EncodeTexts = Callable[[Sequence[str]], Tensor]
"""Texts to L2-normalised embeddings float32 [n, d]."""


def filled(template: str, name: str) -> str:
    """The template with the name of a class in its place."""
    for place in PLACES:
        template = template.replace(place, name)
    return template


def texts_of(names: Sequence[str], templates: Sequence[str]) -> list[str]:
    """All names of one class in all templates; a text that comes twice counts twice."""
    return [filled(template, name) for name in names for template in templates]


def classifier(
    encode: EncodeTexts, classes: Sequence[Sequence[str]], templates: Sequence[str], title: str = ""
) -> Tensor:
    """One embedding for each class, of length 1.

    Args:
        encode: of a text tower.
        classes: the names of each class, which mean the same.
        templates: texts with a place for a name.
        title: of the progress bar.

    Returns:
        float64 [C, d]: means of float32 embeddings, not rounded again.
    """
    bar = tqdm(total=len(classes), desc=f"embed: classes {title}".strip(), unit="class", leave=None)
    rows = []
    with bar:
        for group in _groups([texts_of(names, templates) for names in classes]):
            embeddings = encode([text for texts in group for text in texts]).double()
            parts = embeddings.split([len(texts) for texts in group])
            rows += [part.mean(dim=0) for part in parts]
            bar.update(len(group))
    return normalize(torch.stack(rows), dim=1)


def _groups(texts: Sequence[list[str]]) -> Iterator[list[list[str]]]:
    """The texts of several classes at once, about as many as fill a few batches."""
    group: list[list[str]] = []
    held = 0
    for of_class in texts:
        if group and held + len(of_class) > _TEXTS_AT_ONCE:
            yield group
            group, held = [], 0
        group.append(of_class)
        held += len(of_class)
    if group:
        yield group
