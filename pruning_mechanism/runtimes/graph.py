"""A vision tower as an ONNX graph for all batch sizes: what other programs' graphs come of."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.export import Dim
from transformers import PreTrainedModel

from pruning_mechanism.checkpoints.record import first_line
from pruning_mechanism.costs.conditions import noise_pixels
from pruning_mechanism.families import TowerError
from pruning_mechanism.runtimes.in_torch import Embedder
from pruning_mechanism.runtimes.needs import check_installed

INPUT, OUTPUT = "pixels", "embeddings"


def write_onnx(model: PreTrainedModel, file: Path) -> None:
    """Write a model's vision tower as an ONNX graph, [n, 3, height, width] → [n, d], n free.

    Args:
        model: on the CPU, in float32.
        file: where; weights beyond 2 GB, which ONNX can't hold in a graph, lie in a file beside it.

    Raises:
        TowerError: a library is missing, or ONNX can't say what the tower does.
    """
    check_installed("an ONNX graph", ("onnx", "onnxscript"), "onnx")
    weights = sum(tensor.nbytes for tensor in model.state_dict().values())
    try:
        with torch.no_grad(), quiet():
            torch.onnx.export(
                Embedder(model).eval().requires_grad_(False),
                (noise_pixels(model, 2),),
                file,
                dynamo=True,
                verbose=False,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes={INPUT: {0: Dim.DYNAMIC}},
                external_data=weights > 1 << 30,
            )
    except Exception as error:  # whatever torch.export and its translation to ONNX may raise
        raise TowerError(
            f"this tower can't be said as an ONNX graph ({first_line(error)}): load it with "
            "runtime 'torch' or 'compile'"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Without what exporting libraries warn of and log, none of which a user could act on."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
