"""Towers in int8: the weights of every product by channel, what goes in calibrated on images.

Between a tower's ONNX graph and its export. NNCF moves the outliers of activations into the weights
(SmoothQuant, arXiv 2211.10438), finds ranges, and puts biases right. Products that int8 harms most
for their work stay in float32 (`rounding`). Ranges are fixed then, so an
image's embedding doesn't depend on the batch that it comes in, as it would with ranges that are
found anew for every batch. `making` then solves the last linear map anew, in float32.
"""

import ast
import logging
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import Any

from torch import Tensor

from pruning_mechanism.families import TowerError
from pruning_mechanism.runtimes.graph import INPUT, OUTPUT, quiet
from pruning_mechanism.runtimes.int8.closing import Closing
from pruning_mechanism.runtimes.int8.rounding import SMOOTHING
from pruning_mechanism.runtimes.parity import batches
from pruning_mechanism.runtimes.unreported import unreported

CALIBRATION = 256
"""Images that the ranges of activations are found on."""
_SCOPES = "pkg.torch.onnx.name_scopes"
"""What an ONNX node says of the modules that it stands in, as Python writes a list of names."""
FEATURES = "features"
"""What the last linear map takes, in a graph that it ends."""


def quantise(graph: Path, pixels: Tensor, left: Collection[str] = ()) -> None:
    """Put an ONNX graph in int8 in its place.

    Args:
        graph: of a tower without its last linear map, [n, 3, height, width] → [n, r].
        pixels: calibration images.
        left: modules of an `Embedder` whose products stay in float32.

    Raises:
        TowerError: the graph doesn't say which product one of them is.
    """
    import onnx

    nncf = unreported("nncf")
    nncf.set_log_level(logging.ERROR)
    model: Any = onnx.load(graph)
    ignored = _products_of(model, left)
    advanced = nncf.AdvancedQuantizationParameters(
        smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=SMOOTHING)
    )
    images = [{INPUT: batch.numpy()} for batch in batches(pixels[:CALIBRATION])]
    with quiet():
        made: Any = nncf.quantize(
            model,
            nncf.Dataset(images),
            model_type=nncf.ModelType.TRANSFORMER,
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(images),
            ignored_scope=nncf.IgnoredScope(names=ignored),
            advanced_parameters=advanced,
        )
    _write(made, graph)


def modules_in(graph: Path) -> frozenset[str]:
    """The modules of an `Embedder` whose products an ONNX graph computes as they do.

    Of a last layer that is computed for the class token alone, keys and values aren't among them.
    """
    import onnx

    return frozenset(_products(onnx.load(graph, load_external_data=False)))


def _products_of(model: Any, modules: Collection[str]) -> list[str]:
    """The names of the nodes that are the products of modules."""
    nodes = _products(model)
    if unknown := [name for name in modules if name not in nodes]:
        raise TowerError(f"the graph of this tower doesn't tell where {unknown[0]} is computed")
    return [node for name in modules for node in nodes[name]]


def _products(model: Any) -> dict[str, list[str]]:
    """The names of the nodes that are products, by the module that they stand in."""
    nodes: dict[str, list[str]] = defaultdict(list)
    for node in model.graph.node:
        if node.op_type not in ("MatMul", "Gemm", "Conv"):
            continue
        said = {entry.key: entry.value for entry in node.metadata_props}.get(_SCOPES, "[]")
        scopes = ast.literal_eval(said)  # the last is the call itself, within its module
        if len(scopes) > 1:
            nodes[scopes[-2]].append(node.name)
    return nodes


def close(graph: Path, closing: Closing) -> None:
    """Let an ONNX graph end in a linear map, in float32."""
    import onnx
    from onnx import helper, numpy_helper

    model: Any = onnx.load(graph)
    (output,) = model.graph.output
    features = output.name
    if features == OUTPUT:  # the name is wanted for what comes after it
        for node in model.graph.node:
            for names in (node.input, node.output):
                for place, name in enumerate(names):
                    if name == features:
                        names[place] = FEATURES
        features = FEATURES
    for name, tensor in (("closing.weight", closing.weight), ("closing.bias", closing.bias)):
        array = tensor.detach().contiguous().numpy()
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    inputs = [features, "closing.weight", "closing.bias"]
    model.graph.node.append(helper.make_node("Gemm", inputs, [OUTPUT], name="closing"))
    size = closing.weight.shape[1]
    rows = output.type.tensor_type.shape.dim[0].dim_param or "n"
    del model.graph.output[:]
    model.graph.output.append(
        helper.make_tensor_value_info(OUTPUT, onnx.TensorProto.FLOAT, [rows, size])
    )
    _write(model, graph)


def _write(model: Any, graph: Path) -> None:
    """Write an ONNX graph in place of an earlier one, weights beside it if they are many."""
    import onnx

    for file in graph.parent.iterdir():
        file.unlink()
    beside = model.ByteSize() > 1 << 30
    onnx.save(model, graph, save_as_external_data=beside, location=f"{graph.name}.data")
