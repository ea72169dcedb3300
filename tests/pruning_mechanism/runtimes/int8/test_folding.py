"""A weight that a graph computes of constants becomes one, and nothing else changes."""

import pytest
import torch
from torch import nn

from pruning_mechanism import Reduction, reduce
from pruning_mechanism.runtimes.graph import write_onnx
from pruning_mechanism.runtimes.int8.folding import fold_weights
from pruning_mechanism.runtimes.int8.quantising import quantise
from tests.conftest import tiny_clip
from tests.pruning_mechanism.runtimes.conftest import pixels

PATCHES = "model.vision_model.embeddings.patch_embedding"


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """Of a tower of a few patches, whose patch embedding is too large for the exporter to fold."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    model = tiny_clip(image_size=32, patch_size=16, num_hidden_layers=1)
    few = reduce(model, Reduction(kept_patches=2))
    few.visual_projection = nn.Identity()
    file = tmp_path_factory.mktemp("few") / "model.onnx"
    write_onnx(few.eval(), file)
    return onnx.load(file), file


def embeddings(model) -> torch.Tensor:
    session = pytest.importorskip("onnxruntime").InferenceSession(model.SerializeToString())
    return torch.from_numpy(session.run(None, {"pixels": pixels(3, side=32).numpy()})[0])


def computed(model) -> list[str]:
    """The operations that weights of products come out of."""
    constants = {tensor.name for tensor in model.graph.initializer}
    makers = {name: node.op_type for node in model.graph.node for name in node.output}
    return [
        makers[node.input[1]]
        for node in model.graph.node
        if node.op_type in ("MatMul", "Gemm") and node.input[1] not in constants
    ]


def test_every_weight_becomes_a_constant_and_products_of_two_activations_stay(graph):
    model, _ = graph
    folded = type(model)()
    folded.CopyFrom(model)
    fold_weights(folded)
    assert len(computed(folded)) == len(computed(model)) - 1  # but for the patch embedding's
    assert len(folded.graph.node) < len(model.graph.node)
    assert f"{PATCHES}.weight" not in {tensor.name for tensor in folded.graph.initializer}
    assert torch.equal(embeddings(folded), embeddings(model))


def test_a_weight_that_is_made_of_the_same_thing_twice_is_folded():
    """Steps run in an order in which each finds its inputs, whatever shares them."""
    onnx = pytest.importorskip("onnx")
    helper, single = onnx.helper, onnx.TensorProto.FLOAT
    own = torch.arange(4.0).reshape(2, 2)
    nodes = [
        helper.make_node("Transpose", ["own"], ["turned"], perm=[1, 0]),
        helper.make_node("Neg", ["turned"], ["less"]),
        helper.make_node("Concat", ["less", "turned"], ["weight"], axis=1),
        helper.make_node("MatMul", ["pixels", "weight"], ["embeddings"]),
    ]
    given, made = (
        helper.make_tensor_value_info(name, single, ["n", size])
        for name, size in (("pixels", 2), ("embeddings", 4))
    )
    kept = [onnx.numpy_helper.from_array(own.numpy(), "own")]
    model = helper.make_model(helper.make_graph(nodes, "twice", [given], [made], kept))
    fold_weights(model)
    (weight,) = model.graph.initializer
    assert [node.op_type for node in model.graph.node] == ["MatMul"]
    folded = torch.from_numpy(onnx.numpy_helper.to_array(weight).copy())
    assert torch.equal(folded, torch.cat([-own.T, own.T], dim=1))


def test_a_tower_of_a_few_patches_is_put_in_int8_with_its_patch_embedding(graph, tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("nncf")
    model, _ = graph
    file = tmp_path / "model.onnx"
    onnx.save(model, file)
    quantise(file, pixels(8, side=32))
    every = {tensor.name for tensor in onnx.load(file).graph.initializer}
    left = tmp_path / "left"
    left.mkdir()
    onnx.save(model, left / "model.onnx")
    quantise(left / "model.onnx", pixels(8, side=32), [PATCHES])
    spared = {tensor.name for tensor in onnx.load(left / "model.onnx").graph.initializer}
    assert len(every) > len(spared)  # the scales of the patch embedding
    found = torch.nn.functional.cosine_similarity(
        embeddings(onnx.load(left / "model.onnx")), embeddings(model)
    )
    assert found.min() > 0.98
