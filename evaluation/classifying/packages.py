"""Class names and templates that other packages carry: open_clip_torch and clip-benchmark.

Their files are read without importing the packages, which would import all that models need.
"""

import functools
import importlib.util
import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from compress.errors import UserError

OPEN_CLIP = "open_clip_torch"
BENCHMARK = "clip-benchmark"
_METADATA = ("open_clip", "zero_shot_metadata.py")
_NAMES = ("clip_benchmark", "datasets/en_classnames.json")
_TEMPLATES = ("clip_benchmark", "datasets/en_zeroshot_classification_templates.json")


def imagenet_names() -> tuple[str, ...]:
    """ImageNet's 1,000 class names in the order of its labels; two pairs of classes share one.

    Raises:
        UserError: neither package is installed.
    """
    metadata = _file(*_METADATA)
    if metadata:
        return tuple(_python(metadata)["IMAGENET_CLASSNAMES"])
    return _entry(_NAMES, "imagenet1k", "ImageNet's class names", OPEN_CLIP)


def imagenet_templates() -> tuple[str, ...]:
    """The 80 templates of CLIP's paper.

    Raises:
        UserError: neither package is installed.
    """
    metadata = _file(*_METADATA)
    if metadata:
        return _filled_in(_python(metadata)["OPENAI_IMAGENET_TEMPLATES"])
    return _entry(_TEMPLATES, "imagenet1k", "ImageNet's templates", OPEN_CLIP)


def simple_imagenet_templates() -> tuple[str, ...]:
    """The seven of these that do almost as well.

    Raises:
        UserError: open_clip isn't installed.
    """
    metadata = _file(*_METADATA)
    if not metadata:
        raise _absent("the templates imagenet-simple", OPEN_CLIP)
    return _filled_in(_python(metadata)["SIMPLE_IMAGENET_TEMPLATES"])


def benchmark_names(data_set: str) -> tuple[str, ...]:
    """clip-benchmark's class names of a data set.

    Raises:
        UserError: it isn't installed.
    """
    return _entry(_NAMES, data_set, f"the class names {data_set}", BENCHMARK)


def benchmark_templates(data_set: str) -> tuple[str, ...]:
    """clip-benchmark's templates of a data set.

    Raises:
        UserError: it isn't installed.
    """
    return _entry(_TEMPLATES, data_set, f"the templates {data_set}", BENCHMARK)


def _entry(where: tuple[str, str], name: str, what: str, package: str) -> tuple[str, ...]:
    file = _file(*where)
    if not file:
        raise _absent(what, package)
    return tuple(json.loads(file.read_text(encoding="utf-8"))[name])


def _filled_in(templates: tuple[Callable[[str], str], ...]) -> tuple[str, ...]:
    """Functions of a name as texts with a place for it."""
    return tuple(template("{}") for template in templates)


def _file(package: str, name: str) -> Path | None:
    """A file of a package, if that is installed."""
    found = importlib.util.find_spec(package)
    places = (found.submodule_search_locations if found else None) or ()
    return next((Path(place) / name for place in places if (Path(place) / name).is_file()), None)


@functools.cache
def _python(file: Path) -> dict[str, Any]:
    """What a Python file of plain data defines."""
    return runpy.run_path(str(file))


def _absent(what: str, package: str) -> UserError:
    return UserError(
        f"{what} come with the package {package}, which isn't installed: pip install {package}, or "
        "pass --classes FILE and --templates FILE"
    )
