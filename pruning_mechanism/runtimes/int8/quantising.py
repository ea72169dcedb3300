"""Towers in int8: the weights of every product by channel, what goes in calibrated on images.

Between a tower's ONNX graph and its export. Outliers of activations go into the weights
(`smoothing`), then NNCF finds ranges and puts biases right. Products that int8 harms most for their
work stay in float32 (`rounding`). Ranges are fixed then, so an image's embedding doesn't depend on
the batch that it comes in, as it would with ranges that are found anew for every batch. `making`
then solves the last linear map anew, in float32.
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
from pruning_mechanism.runtimes.int8.folding import PRODUCTS, fold_weights
from pruning_mechanism.runtimes.int8.smoothing import smooth
from pruning_mechanism.runtimes.parity import batches
from pruning_mechanism.runtimes.unreported import unreported

CALIBRATION = 256
"""Images that the ranges of activations are found on."""
TOGETHER = 2
"""Images of a batch: NNCF keeps all that goes into and comes out of every product for them."""
_SCOPES = "pkg.torch.onnx.name_scopes"
"""What an ONNX node says of the modules that it stands in, as Python writes a list of names."""
FEATURES = "features"
"""What the last linear map takes, in a graph that it ends."""


def quantise(graph: Path, pixels: Tensor, left: Collection[str] = ()) -> None:
    """Put an ONNX graph in int8 in its place.

    Weights lie in a file beside the graph meanwhile, since NNCF copies what it holds in memory for
    every step: of a graph without weights, that is little.

    Args:
        graph: of a tower without its last linear map, [n, 3, height, width] → [n, r].
        pixels: calibration images.
        left: modules of an `Embedder` whose products stay in float32.

    Raises:
        TowerError: the graph doesn't say which product one of them is.
    """
    import onnx

    seen = pixels[:CALIBRATION]
    model: Any = onnx.load(graph)
    ignored = _products_of(model, left)
    fold_weights(model)
    _write(model, graph, beside=True)
    del model
    smooth(graph, seen, TOGETHER)
    _write(_rounded(graph, seen, ignored), graph)


def _rounded(graph: Path, pixels: Tensor, ignored: list[str]) -> Any:
    """The ONNX graph in int8, but for some nodes.

    Ranges are the least and the largest value of all images, which unlike NNCF's own choice, the
    means of those by batch, don't depend on which images come together.
    """
    import onnx

    nncf = unreported("nncf")
    nncf.set_log_level(logging.ERROR)
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    advanced = nncf.AdvancedQuantizationParameters(
        smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=-1),  # it is done
        activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
        backend_params={"external_data_dir": str(graph.parent.absolute())},
    )
    images = [{INPUT: batch.numpy()} for batch in batches(pixels, TOGETHER)]
    with quiet():
        return nncf.quantize(
            onnx.load(graph, load_external_data=False),
            nncf.Dataset(images),
            model_type=nncf.ModelType.TRANSFORMER,
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(images),
            ignored_scope=nncf.IgnoredScope(names=ignored),
            advanced_parameters=advanced,
        )


def modules_in(graph: Path) -> frozenset[str]:
    """The modules of an `Embedder` whose products an ONNX graph computes as they do.

    Of a last layer that is computed for the class token alone, keys and values aren't among them.
    """
    import onnx

    return frozenset(_products(onnx.load(graph, load_external_data=False)))


def product_of(module: str, known: Collection[str]) -> str | None:
    """The module that computes the product with another's weight, of those that a graph knows.

    It is the other one itself, or what is around it: embeddings of a few patches multiply with the
    weight of the patch embedding themselves. None: the graph computes it in another way.
    """
    around = module.rpartition(".")[0]
    return next((name for name in (module, around) if name in known), None)


def _products_of(model: Any, modules: Collection[str]) -> list[str]:
    """The names of the nodes that are the products with modules' weights."""
    nodes = _products(model)
    found = {module: product_of(module, nodes) for module in modules}
    if unknown := [module for module, name in found.items() if name is None]:
        raise TowerError(f"the graph of this tower doesn't tell where {unknown[0]} is computed")
    return [node for name in found.values() if name is not None for node in nodes[name]]


def _products(model: Any) -> dict[str, list[str]]:
    """The names of the nodes that are products, by the module that they stand in.

    A weight that still has its own name tells best: a convolution that batch normalisation was
    folded into stands in that.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    nodes: dict[str, list[str]] = defaultdict(list)
    for node in model.graph.node:
        if node.op_type not in PRODUCTS:
            continue
        if node.input[1] in weights and node.input[1].endswith(".weight"):
            nodes[node.input[1].removesuffix(".weight")].append(node.name)
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


def _write(model: Any, graph: Path, beside: bool = False) -> None:
    """Write an ONNX graph in place of an earlier one, weights beside it if they are many."""
    import onnx

    for file in graph.parent.iterdir():
        file.unlink()
    beside = beside or model.ByteSize() > 1 << 30
    onnx.save(model, graph, save_as_external_data=beside, location=f"{graph.name}.data")
