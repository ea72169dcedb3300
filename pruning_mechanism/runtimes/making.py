"""Makes an export: tower → ONNX graph → a program's own form, compared with torch at once."""

import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from transformers import PreTrainedModel

from pruning_mechanism.encoding import image_embeddings
from pruning_mechanism.families import TowerError
from pruning_mechanism.runtimes.exports import Export, digests, tower_digest
from pruning_mechanism.runtimes.formats import Format
from pruning_mechanism.runtimes.graph import write_onnx
from pruning_mechanism.runtimes.int8 import closing
from pruning_mechanism.runtimes.int8.quantising import (
    close,
    modules_in,
    product_of,
    quantise,
)
from pruning_mechanism.runtimes.int8.rounding import SEEN, left_in_float, rounding_harm
from pruning_mechanism.runtimes.parity import (
    SAME,
    Parity,
    compared,
    embedded,
    noise_parity,
)
from pruning_mechanism.runtimes.runtime import Dtype

LEAST_IMAGES = 8
"""Calibration images that int8 takes at least."""
LEAST_KEPT = 0.9
"""The mean cosine below which an int8 export is another tower, and isn't written."""


@dataclass(frozen=True)
class Images:
    """Calibration images as the tower takes them, [n, 3, height, width], and what to call them."""

    pixels: Tensor
    called: str


def check_exportable(form: Format, dtype: Dtype, images: int) -> None:
    """Raise `TowerError` if an export can't be made here, as far as can be said beforehand.

    Args:
        form: of the export.
        dtype: of the export.
        images: calibration images that there are.
    """
    form.check_made(dtype)
    if dtype == "int8" and images < LEAST_IMAGES:
        raise TowerError(
            f"int8 is calibrated on images, {LEAST_IMAGES} at least, and there are {images}: make "
            f"it with python -m pruning_mechanism.export DIR --to {form.name} --dtype int8 "
            "--corpus NAME"
        )


def make_export(
    model: PreTrainedModel,
    form: Format,
    dtype: Dtype,
    directory: Path,
    images: Images | None = None,
) -> Export:
    """Write an export of a model's vision tower, with its record, into an empty directory.

    Args:
        model: on the CPU, in float32.
        form: of the export.
        dtype: that it computes in.
        directory: where.
        images: to calibrate int8 on, and to compare embeddings on.

    Raises:
        TowerError: a library is missing, the tower can't be said in this form, int8 lacks images,
            or float32 gives other embeddings than torch.
    """
    check_exportable(form, dtype, 0 if images is None else len(images.pixels))
    said, left = "as it was", tuple[str, ...]()
    wanted = None if images is None else _embeddings(model, images.pixels)
    with tempfile.TemporaryDirectory(dir=directory) as beside:
        graph = Path(beside) / "model.onnx"
        if dtype == "int8" and images is not None and wanted is not None:
            said, left = _quantised(model, form, graph, directory, images.pixels, wanted)
        else:
            write_onnx(model, graph)
            form.write(graph, directory)
    runtime = form.open(directory, dtype)
    noise, seen = noise_parity(model, runtime.embed), None
    if images is not None and wanted is not None:
        seen = compared(embedded(runtime.embed, images.pixels), wanted)
    _check_parity(form, dtype, noise, seen)
    export = _record(model, form, dtype, directory, noise, seen, said, left, images)
    export.write(directory)
    return export


def _quantised(
    model: PreTrainedModel,
    form: Format,
    graph: Path,
    directory: Path,
    pixels: Tensor,
    wanted: Tensor,
) -> tuple[str, tuple[str, ...]]:
    """Write an int8 graph with a projection solved for it.

    Args:
        model: on the CPU, in float32.
        form: of the export.
        graph: the file of the ONNX graph.
        directory: of the export.
        pixels: of the calibration images.
        wanted: torch's embeddings of them.

    Returns:
        what was done to the projection, and which products stay in float32.
    """
    before, own = closing.split(model)
    write_onnx(before, graph)
    left = _left_in_float(model, modules_in(graph), pixels)
    quantise(graph, pixels, left)
    form.write(graph, directory)  # it runs as it will, so that its own rounding is put right too
    features = embedded(form.open(directory, "int8").embed, pixels)
    ending = closing.solve(own, features, wanted)
    close(graph, ending)
    form.write(graph, directory)
    solved = ending.solved
    if solved is None or solved.as_it_was:
        return "as it was", tuple(left)
    return (
        f"solved on {len(pixels)} images: mean squared distance {solved.before:.4g} before, "
        f"{solved.left_out:.4g} on images left out"
    ), tuple(left)


def _left_in_float(model: PreTrainedModel, known: Collection[str], pixels: Tensor) -> list[str]:
    """Modules whose products int8 harms too much, by name, of those that the graph knows.

    Those without the last linear map, which stays in float32 anyway.

    Raises:
        TowerError: the graph knows none.
    """
    products = rounding_harm(model, pixels[:SEEN])
    harmed = [product for product in products if product_of(product.name, known)]
    if not harmed:
        raise TowerError("the graph of this tower doesn't tell where any module is computed")
    return [product.name for product in left_in_float(harmed)]


def _embeddings(model: PreTrainedModel, pixels: Tensor) -> Tensor:
    """Torch's embeddings of many images."""
    return embedded(lambda batch: image_embeddings(model, batch), pixels)


def _check_parity(form: Format, dtype: Dtype, noise: Parity, seen: Parity | None) -> None:
    """Raise `TowerError` if embeddings are not what the type allows."""
    for what, parity in (("noise", noise), ("calibration images", seen)):
        if parity is None:
            continue
        if dtype == "int8" and parity is seen and parity.cosine < LEAST_KEPT:
            raise TowerError(
                f"int8 changes the embeddings of this tower too much ({what}: {parity}; "
                f"{LEAST_KEPT} is the least): use bfloat16 or float32"
            )
        wrong = parity.difference > SAME if dtype == "float32" else parity.cosine < 0
        if wrong or parity.difference == float("inf"):
            raise TowerError(
                f"{form.runtime} computes other embeddings of this tower than torch ({what}: "
                f"{parity}; float32 may differ by {SAME:g}): load it with runtime 'torch', or "
                f"export to {'onnx' if form.name == 'openvino' else 'openvino'}"
            )


def _record(
    model: PreTrainedModel,
    form: Format,
    dtype: Dtype,
    directory: Path,
    noise: Parity,
    seen: Parity | None,
    said: str,
    left: tuple[str, ...],
    images: Images | None,
) -> Export:
    none = Parity(0, 0.0, 1.0, 1.0)
    on_images = seen or none
    return Export(
        format=form.name,
        dtype=dtype,
        tower=tower_digest(model),
        versions=form.versions(),
        noise_images=noise.images,
        noise_difference=noise.difference,
        noise_least=noise.least,
        noise_cosine=noise.cosine,
        images=on_images.images,
        images_difference=on_images.difference,
        images_least=on_images.least,
        images_cosine=on_images.cosine,
        closing=said,
        left=left,
        calibration="none" if images is None else images.called,
        files=digests(directory),
    )
