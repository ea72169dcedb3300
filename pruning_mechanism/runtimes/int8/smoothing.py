"""SmoothQuant (arXiv 2211.10438) of an ONNX graph: outliers of activations go into the weights.

A product's input xⱼ of channel j is divided by sⱼ, and row j of its weight multiplied, so that both
are easier to round and the product is the same:

    sⱼ = max|xⱼ|^α / max|wⱼ|^(1 - α)                                              (equation 4)

Before ranges are found (`quantising`). The scales are kept in the bounds that NNCF keeps them in,
whose own SmoothQuant copies all weights several times over in memory; here they are changed where
they lie, in the file beside the graph. Products of the same input share the scales of the one whose
scales vary least, as in NNCF; the paper takes the largest weight of all of them.
"""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pruning_mechanism.runtimes.graph import INPUT
from pruning_mechanism.runtimes.parity import batches

SMOOTHING = 0.5
"""α: how much of an outlier goes into the weights."""
LEAST = 1e-5
"""What peaks are taken for at least."""
QUANTILE = 0.1
"""Of a product's scales, below which none of them lies."""
MOST = 100.0
"""The largest scale."""
WATCHED = "watched.onnx"
"""The graph that also gives what goes into products."""

Array = NDArray[np.float32]


@dataclass(frozen=True)
class _Weight:
    """A weight [c, d], or [d, c] if `turned`, of the product that `node` is."""

    node: Any
    tensor: Any
    turned: bool

    @property
    def axis(self) -> int:
        """That of the channels that go in."""
        return 1 if self.turned else 0

    def by_channel(self, values: Array) -> Array:
        """Values [c] to multiply the weight with."""
        return values if self.turned else values[:, None]


def smooth(graph: Path, pixels: Tensor, together: int) -> None:
    """Move outliers into weights, in place; of convolutions nothing is moved.

    Args:
        graph: its weights lie in a file beside it, small ones in itself.
        pixels: calibration images [n, 3, height, width].
        together: images at once.
    """
    import onnx

    model: Any = onnx.load(graph, load_external_data=False)
    if not (weights := _weights(model)):  # a network of convolutions
        return
    peaks = _peaks(model, graph, list(weights), pixels, together)
    for name, group in weights.items():
        held = [_held(weight.tensor, graph.parent) for weight in group]
        scales = max(
            (
                scales_of(peaks[name], np.abs(array).max(axis=1 - weight.axis))
                for weight, array in zip(group, held, strict=True)
            ),
            key=lambda scales: float(scales.min() / scales.max()),
        )
        for weight, array in zip(group, held, strict=True):
            array *= weight.by_channel(scales)
            _keep(weight.tensor, array)
        _divide(model.graph, name, group, scales)
    onnx.save(model, graph)


def _weights(model: Any) -> dict[str, list[_Weight]]:
    """The weights of products, by what goes in; without those of more than one product."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    readers = [name for node in model.graph.node for name in node.input]
    fixed = {*tensors, *(entry.name for entry in model.graph.input)}
    found: dict[str, list[_Weight]] = defaultdict(list)
    for node in model.graph.node:
        if node.op_type not in ("MatMul", "Gemm") or node.input[0] in fixed:
            continue
        tensor = tensors.get(node.input[1])
        if tensor is None or len(tensor.dims) != 2 or readers.count(tensor.name) > 1:
            continue
        said = {each.name: each.i for each in node.attribute}
        if not said.get("transA", 0):
            found[node.input[0]].append(_Weight(node, tensor, bool(said.get("transB", 0))))
    return found


@torch.inference_mode()
def _peaks(
    model: Any, graph: Path, names: list[str], pixels: Tensor, together: int
) -> dict[str, Array]:
    """The largest absolute values by channel, [c], of some tensors in a graph."""
    import onnx
    import onnxruntime

    watching = onnx.ModelProto()
    watching.CopyFrom(model)
    del watching.graph.output[:]
    watching.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    file = graph.with_name(WATCHED)
    onnx.save(watching, file)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, ["CPUExecutionProvider"])
    peaks: dict[str, Array] = {}
    for batch in batches(pixels, together):
        for name, array in zip(names, session.run(names, {INPUT: batch.numpy()}), strict=True):
            peak = np.abs(array).max(axis=tuple(range(array.ndim - 1)))
            peaks[name] = np.maximum(peaks[name], peak) if name in peaks else peak
    file.unlink()
    return peaks


def scales_of(inputs: Array, weights: Array) -> Array:
    """The scales [c] of peaks of inputs and weights, equation 4."""
    inputs, weights = np.maximum(inputs, LEAST), np.maximum(weights, LEAST)
    scales = inputs**SMOOTHING / weights ** (1 - SMOOTHING)
    return np.clip(scales, np.quantile(scales, QUANTILE), MOST).astype(np.float32)


def _held(tensor: Any, folder: Path) -> Array:
    """A weight to be changed: where it lies in its file, or a copy of what is in the graph."""
    from onnx import numpy_helper
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    if not uses_external_data(tensor):
        copied: Array = numpy_helper.to_array(tensor).copy()
        return copied
    said, shape = ExternalDataInfo(tensor), tuple(tensor.dims)
    return np.memmap(
        folder / said.location, np.float32, mode="r+", offset=said.offset or 0, shape=shape
    )


def _keep(tensor: Any, array: Array) -> None:
    """Put a changed weight where it was."""
    from onnx import numpy_helper

    if isinstance(array, np.memmap):
        array.flush()
    else:
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _divide(graph: Any, name: str, group: list[_Weight], scales: Array) -> None:
    """Let products take a tensor divided by channel."""
    from onnx import helper, numpy_helper

    factors, divided = f"{name}.smoothing", f"{name}.smoothed"
    graph.initializer.append(numpy_helper.from_array(1 / scales, factors))
    first = min(list(graph.node).index(weight.node) for weight in group)
    made = helper.make_node("Mul", [name, factors], [divided], name=divided)
    for weight in group:
        weight.node.input[0] = divided
    graph.node.insert(first, made)
