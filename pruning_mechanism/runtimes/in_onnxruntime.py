"""A vision tower in ONNX Runtime, on the CPU: its graph as a file, and as a `Runtime`."""

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pruning_mechanism.checkpoints.identity import files_fingerprint
from pruning_mechanism.runtimes.graph import INPUT
from pruning_mechanism.runtimes.runtime import Dtype

FILE = "model.onnx"
"""What the graph's file is called."""


class OnnxRuntime:
    """A graph in ONNX Runtime, on as many threads as torch has; has the members of `Runtime`.

    Any thread may embed.
    """

    name = "onnxruntime"

    def __init__(self, directory: Path, dtype: Dtype) -> None:
        """Load what an export wrote into a directory."""
        import onnxruntime

        self.dtype = dtype
        self.content = files_fingerprint([directory / FILE]) if dtype == "int8" else None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        self._session: Any = onnxruntime.InferenceSession(
            str(directory / FILE), options, providers=["CPUExecutionProvider"]
        )

    def embed(self, pixels: Tensor) -> Tensor:
        """The embeddings [n, d], not normalised, of pixels [n, 3, height, width]."""
        given = {INPUT: pixels.detach().cpu().float().numpy()}
        return torch.from_numpy(self._session.run(None, given)[0])


def write(graph: Path, directory: Path) -> None:
    """Put an ONNX graph into the directory of an export.

    Args:
        graph: the file, alone or with its weights beside it, in a directory of their own.
        directory: of the export.
    """
    for file in graph.parent.iterdir():
        shutil.copyfile(file, directory / file.name)
