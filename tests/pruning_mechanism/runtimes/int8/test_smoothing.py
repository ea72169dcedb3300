"""Outliers go from what products take into their weights, and products stay what they are."""

import numpy as np
import pytest
import torch

from pruning_mechanism.runtimes.graph import INPUT, write_onnx
from pruning_mechanism.runtimes.in_torch import Embedder
from pruning_mechanism.runtimes.int8.closing import split
from pruning_mechanism.runtimes.int8.smoothing import LEAST, MOST, QUANTILE, smooth
from tests.pruning_mechanism.runtimes.conftest import pixels
from tests.pruning_mechanism.test_export import one_layer

LAYER = "model.vision_model.encoder.layers.0"


@pytest.fixture(scope="module")
def smoothed(tmp_path_factory):
    """A tower of one layer with an outlier, its graph, and where that lies smoothed in two ways."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    model = one_layer().eval()
    with torch.no_grad():
        model.vision_model.encoder.layers[0].layer_norm2.weight[3] *= 50
    place = tmp_path_factory.mktemp("smoothed")
    file = place / "model.onnx"
    before, _ = split(model)
    write_onnx(before, file)
    whole = onnx.load(file)
    for name in ("beside", "inside"):
        (place / name).mkdir()
        onnx.save(
            onnx.load(file),
            place / name / "model.onnx",
            save_as_external_data=name == "beside",
            location="model.onnx.data",
        )
        smooth(place / name / "model.onnx", pixels(12), together=5)
    return before, whole, place


def embeddings(model) -> np.ndarray:
    session = pytest.importorskip("onnxruntime").InferenceSession(model.SerializeToString())
    return session.run(None, {INPUT: pixels(4, seed=1).numpy()})[0]


def tensors(model) -> dict[str, np.ndarray]:
    from onnx import numpy_helper

    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def scales_of(model, module: str) -> np.ndarray:
    """What the input of a module's product is divided by."""
    for node in model.graph.node:
        if node.op_type in ("MatMul", "Gemm") and any(
            f"'{module}'" in entry.value for entry in node.metadata_props
        ):
            name = node.input[0].removesuffix(".smoothed")
            return 1 / tensors(model)[f"{name}.smoothing"]
    raise LookupError(module)


def by_definition(before, *modules: str) -> list[np.ndarray]:
    """Equation 4 by what hooks see in torch."""
    embedder, found = Embedder(before), []
    for name in modules:
        module, seen = embedder.get_submodule(name), []
        hook = module.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
        with torch.no_grad():
            embedder(pixels(12))
        hook.remove()
        peaks = seen[0].abs().flatten(0, -2).amax(0).clamp(min=LEAST)
        scales = (peaks / module.weight.detach().abs().amax(0).clamp(min=LEAST)).sqrt()
        found.append(scales.clamp(scales.quantile(QUANTILE), MOST).numpy())
    return found


@pytest.mark.parametrize("place", ["beside", "inside"])
def test_embeddings_stay_what_they_are(smoothed, place):
    onnx = pytest.importorskip("onnx")
    _, whole, root = smoothed
    made = onnx.load(root / place / "model.onnx")
    assert any(node.op_type == "Mul" and node.name.endswith("smoothed") for node in made.graph.node)
    np.testing.assert_allclose(embeddings(made), embeddings(whole), atol=1e-4, rtol=1e-4)
    assert {file.name for file in (root / place).iterdir()} <= {"model.onnx", "model.onnx.data"}


def test_scales_are_those_of_the_paper(smoothed):
    onnx = pytest.importorskip("onnx")
    before, _, root = smoothed
    made = onnx.load(root / "beside" / "model.onnx")
    (scales,) = by_definition(before, f"{LAYER}.mlp.fc1")
    np.testing.assert_allclose(scales_of(made, f"{LAYER}.mlp.fc1"), scales, rtol=1e-4)
    assert scales.argmax() == 3


def test_products_of_the_same_input_share_the_scales_that_vary_least(smoothed):
    onnx = pytest.importorskip("onnx")
    before, _, root = smoothed
    made = onnx.load(root / "beside" / "model.onnx")
    names = [f"{LAYER}.self_attn.{kind}_proj" for kind in "qkv"]
    every = by_definition(before, *names)
    widest = max(every, key=lambda scales: scales.min() / scales.max())
    for name in names:
        np.testing.assert_allclose(scales_of(made, name), widest, rtol=1e-4)


def test_weights_are_changed_where_they_lie_as_in_the_graph(smoothed):
    onnx = pytest.importorskip("onnx")
    _, _, root = smoothed
    beside, inside = (
        tensors(onnx.load(root / place / "model.onnx")) for place in ("beside", "inside")
    )
    assert beside.keys() == inside.keys()
    for name, array in beside.items():
        np.testing.assert_array_equal(array, inside[name])


def test_a_graph_of_convolutions_alone_stays_as_it_is(tmp_path):
    onnx = pytest.importorskip("onnx")
    from onnx import helper

    value = helper.make_tensor_value_info
    weight = onnx.numpy_helper.from_array(np.ones((4, 3, 2, 2), np.float32), "weight")
    node = helper.make_node("Conv", [INPUT, "weight"], ["features"])
    sizes = ["n", 3, 16, 16], ["n", 4, 15, 15]
    given, made = (
        value(name, onnx.TensorProto.FLOAT, size)
        for name, size in zip((INPUT, "features"), sizes, strict=True)
    )
    graph = helper.make_graph([node], "convolution", [given], [made], [weight])
    file = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph), file)
    before = file.read_bytes()
    smooth(file, pixels(4), together=2)
    assert file.read_bytes() == before
