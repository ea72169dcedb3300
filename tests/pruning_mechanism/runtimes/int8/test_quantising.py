"""NNCF is given a graph without its weights, and its ranges don't depend on how images come."""

from pathlib import Path

import pytest
import torch
from torch import nn

from pruning_mechanism import image_embeddings
from pruning_mechanism.runtimes import in_onnxruntime
from pruning_mechanism.runtimes.graph import INPUT, write_onnx
from pruning_mechanism.runtimes.int8 import quantising
from pruning_mechanism.runtimes.int8.closing import split
from pruning_mechanism.runtimes.int8.quantising import modules_in, product_of, quantise
from pruning_mechanism.runtimes.int8.smoothing import SMOOTHING
from tests.conftest import tiny_clip
from tests.lanes import thorough_only
from tests.pruning_mechanism.runtimes.conftest import pixels
from tests.pruning_mechanism.test_export import MODELS, one_layer

PATCHES = "model.vision_model.embeddings.patch_embedding"


@pytest.fixture(scope="module")
def graph(tmp_path_factory) -> Path:
    """The graph of a tower of one layer, without its projection."""
    pytest.importorskip("onnxscript")
    file = tmp_path_factory.mktemp("graph") / "model.onnx"
    write_onnx(split(one_layer())[0], file)
    return file


def quantised(graph: Path, place: Path, left: tuple[str, ...] = ()) -> torch.Tensor:
    """What a graph in int8 gives of some images."""
    place.mkdir()
    file = place / graph.name
    file.write_bytes(graph.read_bytes())
    quantise(file, pixels(20), left)
    runtime = in_onnxruntime.OnnxRuntime(place, "int8")
    return runtime.embed(pixels(16, seed=9))


def test_ranges_do_not_depend_on_which_images_come_together(graph, tmp_path, monkeypatch):
    pytest.importorskip("nncf")
    few = quantised(graph, tmp_path / "few", (PATCHES,))
    monkeypatch.setattr(quantising, "TOGETHER", 20)
    many = quantised(graph, tmp_path / "many", (PATCHES,))
    torch.testing.assert_close(few, many, atol=1e-5, rtol=1e-5)  # means of biases add up otherwise


@thorough_only
def test_embeddings_are_kept_as_well_as_by_nncf_with_everything_in_memory(tmp_path):
    """Its own SmoothQuant in the same call, ranges by batches of 16."""
    onnx, nncf = pytest.importorskip("onnx"), pytest.importorskip("nncf")
    place, before = tmp_path / "whole", split(tiny_clip())[0]
    place.mkdir()
    write_onnx(before, place / "model.onnx")
    dataset = [{INPUT: batch.numpy()} for batch in pixels(64).split(16)]
    alphas = nncf.AdvancedSmoothQuantParameters(matmul=SMOOTHING)
    whole = nncf.quantize(
        onnx.load(place / "model.onnx"),
        nncf.Dataset(dataset),
        model_type=nncf.ModelType.TRANSFORMER,
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(dataset),
        advanced_parameters=nncf.AdvancedQuantizationParameters(smooth_quant_alphas=alphas),
    )
    quantise(place / "model.onnx", pixels(64))
    onnx.save(whole, tmp_path / "model.onnx")
    unseen = pixels(64, seed=9)
    with torch.no_grad():
        wanted = image_embeddings(before, unseen)
    ours, theirs = (
        torch.cosine_similarity(
            in_onnxruntime.OnnxRuntime(directory, "int8").embed(unseen), wanted
        ).mean()
        for directory in (place, tmp_path)
    )
    assert 1 - ours < 1.5 * (1 - theirs)


def test_nncf_is_given_no_weights_in_memory(graph, tmp_path, monkeypatch):
    nncf, given = pytest.importorskip("nncf"), []
    whole = nncf.quantize

    def watched(model, *args, **kwargs):
        given.append(max(len(tensor.raw_data) for tensor in model.graph.initializer))
        return whole(model, *args, **kwargs)

    monkeypatch.setattr(nncf, "quantize", watched)
    quantised(graph, tmp_path / "made")
    assert len(given) == 1
    assert max(given) < 1024
    assert max(weight.nbytes for weight in one_layer().vision_model.parameters()) > 1024
    assert not list((tmp_path / "made").glob("*.data"))  # of a small tower


def test_a_tower_without_its_projection_lies_in_the_same_memory_and_is_left_as_it_was():
    model = one_layer()
    before, _ = split(model)
    own = dict(model.named_parameters())
    shared = dict(before.named_parameters())
    assert all(weight.data_ptr() == own[name].data_ptr() for name, weight in shared.items())
    before.requires_grad_(False)
    assert all(weight.requires_grad for weight in own.values())
    assert isinstance(model.visual_projection, nn.Linear)
    with torch.no_grad():
        features = image_embeddings(before, pixels(2))
        torch.testing.assert_close(
            model.visual_projection(features), image_embeddings(model, pixels(2))
        )


def test_a_convolution_with_normalisation_folded_into_it_is_known_by_its_weight(tmp_path):
    pytest.importorskip("onnxscript")
    write_onnx(split(MODELS["student, convolutions"]().eval())[0], tmp_path / "model.onnx")
    assert "model.vision_model.encoder.layer3.0.conv2" in modules_in(tmp_path / "model.onnx")


def test_the_patch_embedding_is_known_where_embeddings_multiply_with_its_weight(tmp_path):
    pytest.importorskip("onnxscript")
    write_onnx(split(MODELS["flip grid"]().eval())[0], tmp_path / "model.onnx")
    known = modules_in(tmp_path / "model.onnx")
    assert PATCHES not in known
    assert product_of(PATCHES, known) == "model.vision_model.embeddings"
    assert product_of("model.vision_model.encoder.layers.2.self_attn.k_proj", known) is None
