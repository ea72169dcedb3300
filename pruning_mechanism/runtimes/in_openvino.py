"""A vision tower in OpenVINO, on the CPU: its graph as a file, and as a `Runtime`."""

import threading
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pruning_mechanism.checkpoints.identity import files_fingerprint
from pruning_mechanism.checkpoints.record import first_line
from pruning_mechanism.families import TowerError
from pruning_mechanism.runtimes.runtime import Dtype
from pruning_mechanism.runtimes.unreported import unreported

FILES = ("model.xml", "model.bin")
_HINTS = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}
"""What OpenVINO computes in where the graph doesn't say it is int8."""


class OpenVino:
    """A graph in OpenVINO, on as many threads as torch has; has the members of `Runtime`.

    Any thread may embed: each has a request of its own.
    """

    name = "openvino"

    def __init__(self, directory: Path, dtype: Dtype) -> None:
        """Load what an export wrote into a directory."""
        files = [directory / name for name in FILES]
        self.dtype = dtype
        self.content = files_fingerprint(files) if dtype == "int8" else None
        self._compiled = compiled(files[0], dtype)
        self._requests = threading.local()

    def embed(self, pixels: Tensor) -> Tensor:
        """The embeddings [n, d], not normalised, of pixels [n, 3, height, width]."""
        if not hasattr(self._requests, "own"):
            self._requests.own = self._compiled.create_infer_request()
        found = self._requests.own.infer([pixels.detach().cpu().float().numpy()])[0]
        return torch.from_numpy(found.copy())  # the request writes its next result into the same


def compiled(model: Any, dtype: Dtype) -> Any:
    """A graph, in memory or in a file, made ready for the CPU."""
    settings = {
        "INFERENCE_PRECISION_HINT": _HINTS[dtype],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "ENABLE_CPU_PINNING": False,  # several towers share the cores
    }
    return unreported("openvino").Core().compile_model(model, "CPU", settings)


def write(graph: Path, directory: Path) -> None:
    """Make OpenVINO's form of an ONNX graph, in the directory of an export.

    Raises:
        TowerError: OpenVINO has no operation for what is in the graph.
    """
    save(converted(graph), directory)


def converted(graph: Path) -> Any:
    """OpenVINO's form of an ONNX graph; errors as of `write`."""
    try:
        return unreported("openvino").convert_model(graph)
    except Exception as error:
        raise TowerError(
            f"OpenVINO can't say what this tower does ({first_line(error)}): export to onnx, or "
            "load with runtime 'torch'"
        ) from error


def save(model: Any, directory: Path) -> None:
    """Write a graph as it is, weights in their own type."""
    unreported("openvino").save_model(model, directory / FILES[0], compress_to_fp16=False)
