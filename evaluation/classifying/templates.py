"""Templates: texts with a place for the name of a class, from files, packages, or written here.

The set `cifar` is that of CLIP's paper for CIFAR-10 and CIFAR-100 (arXiv 2103.00020).
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from compress.errors import UserError
from evaluation.classifying.classifier import PLACES
from evaluation.classifying.packages import (
    benchmark_templates,
    imagenet_templates,
    simple_imagenet_templates,
)

PHOTO = ("a photo of a {}.",)
_KINDS = (
    *("photo of {}", "blurry photo of {}", "black and white photo of {}"),
    *("low contrast photo of {}", "high contrast photo of {}", "bad photo of {}"),
    *("good photo of {}", "photo of {} small", "photo of {} big"),
)
CIFAR = tuple(f"a {kind.format(the)} {{}}." for the in ("a", "the") for kind in _KINDS)

TEMPLATES: dict[str, Callable[[], tuple[str, ...]]] = {
    "photo": lambda: PHOTO,
    "cifar": lambda: CIFAR,
    "imagenet": imagenet_templates,
    "imagenet-simple": simple_imagenet_templates,
    "caltech101": lambda: benchmark_templates("caltech101"),
}
"""The sets that have a name: ours, open_clip's, clip-benchmark's."""


def templates_of(wanted: str) -> tuple[str, ...]:
    """The templates of a set, or in a file: one a line, or a JSON list.

    Raises:
        UserError: there is no such set or file, it needs a package that isn't installed, or a
            template is empty or has no place for a name.
    """
    if wanted in TEMPLATES:
        return TEMPLATES[wanted]()
    file = Path(wanted)
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"--templates {wanted}: not UTF-8 text") from error
    except OSError as error:
        raise UserError(
            f"--templates {wanted}: {error.strerror}; name a file, or one of {', '.join(TEMPLATES)}"
        ) from error
    if file.suffix.lower() != ".json":
        return checked([line.strip() for line in text.splitlines() if line.strip()], wanted)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"--templates {wanted}: not JSON ({error})") from error
    if not isinstance(value, list):
        raise UserError(f"--templates {wanted}: holds a {type(value).__name__}, not a list")
    return checked(value, wanted)


def checked(templates: Sequence[object], where: str) -> tuple[str, ...]:
    """Templates as they are, if each is a text with a place for a name.

    Raises:
        UserError: otherwise, or there is none.
    """
    if not templates:
        raise UserError(f"--templates {where}: holds no template")
    found = []
    for number, template in enumerate(templates, start=1):
        if not isinstance(template, str) or not template.strip():
            raise UserError(f"--templates {where}: template {number} is empty")
        if not any(place in template for place in PLACES):
            raise UserError(
                f"--templates {where}: {template!r} has no place for the name of a class: write "
                f"{' or '.join(PLACES)} where it belongs"
            )
        found.append(template)
    return tuple(found)
