"""An export gives the embeddings that torch gives, says how close, and is refused if it doesn't."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pruning_mechanism import TowerError, image_embeddings, reduce
from pruning_mechanism.reduction import Reduction
from pruning_mechanism.runtimes.exports import (
    RECORD,
    StaleExportError,
    check_fresh,
    read_export,
    tower_digest,
)
from pruning_mechanism.runtimes.formats import FORMATS
from pruning_mechanism.runtimes.graph import write_onnx
from pruning_mechanism.runtimes.int8 import rounding
from pruning_mechanism.runtimes.int8.closing import split
from pruning_mechanism.runtimes.int8.quantising import modules_in
from pruning_mechanism.runtimes.making import check_exportable, make_export
from pruning_mechanism.runtimes.needs import bfloat16_problem, installed
from tests.conftest import tiny_clip
from tests.lanes import THOROUGH, sweep, thorough_only
from tests.pruning_mechanism.runtimes.conftest import images, pixels, side_of
from tests.pruning_mechanism.test_export import MODELS, one_layer

ROOT = Path(__file__).resolve().parents[3]
BATCHES = (1, 3, 16)
UNSAID = {"resolutions"}
"""What OpenVINO computes otherwise: it has no antialiased bicubic resizing."""
EVERY = [(name, form) for name in MODELS for form in FORMATS]
FEW = [("merge once", "openvino")]
ROUNDED = [
    (name, form.name, dtype)
    for name in MODELS
    for form in FORMATS.values()
    for dtype in form.dtypes
    if dtype != "float32" and not (form.name == "openvino" and name in UNSAID)
]


def needs(form: str, dtype: str = "float32") -> None:
    for module in (*FORMATS[form].needs, *(("nncf",) if dtype == "int8" else ())):
        pytest.importorskip(module)


@pytest.mark.parametrize(("name", "form"), sweep(EVERY, FEW))
def test_every_kind_of_tower_gives_in_float32_what_torch_gives(name, form, tmp_path):
    needs(form)
    model = MODELS[name]().eval()
    if form == "openvino" and name in UNSAID:
        with pytest.raises(TowerError, match=r"other embeddings .* than torch.*export to onnx"):
            make_export(model, FORMATS[form], "float32", tmp_path)
        return
    export = make_export(model, FORMATS[form], "float32", tmp_path, images(16, of=model))
    runtime = FORMATS[form].open(tmp_path, "float32")
    for count in BATCHES:
        given = pixels(count, seed=count, side=side_of(model))
        with torch.no_grad():
            wanted = image_embeddings(model, given)
        torch.testing.assert_close(runtime.embed(given), wanted, atol=1e-5, rtol=1e-4)
    assert export == read_export(tmp_path)
    assert export.images == 16
    assert export.images_difference < 1e-5
    assert export.noise_cosine > 0.99999


@thorough_only
@pytest.mark.parametrize(("name", "form", "dtype"), ROUNDED)
def test_every_kind_of_tower_stays_close_in_fewer_bits(
    name, form, dtype, tmp_path, record_property
):
    """Whichever batch an image comes in. Rounding may let a token rule choose other tokens."""
    needs(form, dtype)
    if dtype == "bfloat16" and bfloat16_problem("cpu"):
        pytest.skip("no products in bfloat16 here")
    model = MODELS[name]().eval()
    export = make_export(model, FORMATS[form], dtype, tmp_path, images(128, of=model))
    runtime, unseen = FORMATS[form].open(tmp_path, dtype), pixels(16, seed=9, side=side_of(model))
    with torch.no_grad():
        wanted = image_embeddings(model, unseen)
    found = runtime.embed(unseen)
    cosine = torch.cosine_similarity(found, wanted).mean().item()
    print(f"{name}, {form}, {dtype}: cosine {cosine:.5f}, in float32 {export.left}")
    assert cosine > 0.95
    for count in BATCHES[:-1]:
        parts = torch.cat([runtime.embed(part) for part in unseen.split(count)])
        assert torch.cosine_similarity(found, parts).min() > 0.999


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The tiny CLIP in ONNX, float32: (model, directory, record)."""
    pytest.importorskip("onnxruntime")
    directory = tmp_path_factory.mktemp("exported")
    model = one_layer()
    return model, directory, make_export(model, FORMATS["onnx"], "float32", directory)


def test_nothing_but_the_files_it_names_lies_in_an_export(exported):
    _, directory, export = exported
    assert {file.name for file in directory.iterdir()} == {RECORD, *export.files}
    assert set(export.versions) >= {"torch", "onnx", "onnxruntime"}


def test_an_export_of_other_weights_is_refused_and_told_how_to_make_it_again(exported):
    model, directory, export = exported
    check_fresh(directory, export, tower_digest(model))
    other = tower_digest(tiny_clip(seed=1, num_hidden_layers=1))
    with pytest.raises(StaleExportError, match=r"pruning_mechanism\.export .*--overwrite"):
        check_fresh(directory, export, other)


def test_the_same_weights_that_merge_tokens_are_another_tower():
    model = tiny_clip()
    merged = reduce(model, Reduction(merged_per_layer=(2, 0, 0)))
    assert tower_digest(merged) != tower_digest(model)
    assert tower_digest(tiny_clip()) == tower_digest(model)
    known = tower_digest(merged)
    del merged.config.vision_config.aligned_tokens  # as of a version that doesn't know it
    assert tower_digest(merged) == known


def test_a_graph_that_was_changed_afterwards_is_refused(exported, tmp_path):
    model, directory, export = exported
    for file in directory.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    graph = tmp_path / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    with pytest.raises(StaleExportError, match=r"not as it was written \(model.onnx\)"):
        check_fresh(tmp_path, export, tower_digest(model))


@pytest.mark.parametrize("text", ["{", json.dumps({"format": "onnx"}), json.dumps({"format": 3})])
def test_a_damaged_record_is_one_line(text, tmp_path):
    (tmp_path / RECORD).write_text(text)
    with pytest.raises(TowerError, match=RECORD):
        read_export(tmp_path)


def test_what_cannot_be_made_is_known_before_the_work():
    with pytest.raises(TowerError, match=r"onnxruntime computes in float32 or int8.*not in bf"):
        check_exportable(FORMATS["onnx"], "bfloat16", 100)


def test_int8_wants_images():
    needs("onnx", "int8")
    with pytest.raises(
        TowerError, match=r"calibrated on images, 8 at least, and there are 3: .*--"
    ):
        check_exportable(FORMATS["onnx"], "int8", 3)


def test_what_is_missing_is_said_with_the_line_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert not installed("openvino")
    with pytest.raises(TowerError, match=r"pip install 'clip-cascade\[openvino\]'"):
        check_exportable(FORMATS["openvino"], "float32", 0)


def test_what_the_graph_computes_otherwise_is_no_product_to_leave_in_float32(tmp_path):
    """A last layer for the class token alone has no products of keys and values."""
    pytest.importorskip("onnxscript")
    model, layer = reduce(tiny_clip(), Reduction(layers=1)), "model.vision_model.encoder.layers.0"
    before, _ = split(model)
    write_onnx(before, tmp_path / "model.onnx")
    known = modules_in(tmp_path / "model.onnx")
    attention = {f"{layer}.self_attn.{name}_proj" for name in ("q", "k", "v", "out")}
    assert attention & known == {f"{layer}.self_attn.q_proj", f"{layer}.self_attn.out_proj"}
    assert {f"{layer}.mlp.fc1", f"{layer}.mlp.fc2"} < known
    assert "model.vision_model.embeddings.patch_embedding" in known
    assert "model.visual_projection" not in known


def test_a_tower_that_reads_the_class_token_alone_is_exported_whatever_int8_harms(
    tmp_path, monkeypatch
):
    needs("openvino", "int8")
    monkeypatch.setattr(rounding, "HARM", -1.0)
    monkeypatch.setattr(rounding, "MOST", 2.0)
    model = reduce(tiny_clip(), Reduction(layers=1))
    export = make_export(model, FORMATS["openvino"], "int8", tmp_path, images(16))
    assert "model.vision_model.encoder.layers.0.mlp.fc1" in export.left
    assert export.images_cosine > 0.99


@pytest.mark.parametrize("form", sweep(FORMATS, ["onnx"]) if THOROUGH else ["openvino"])
def test_int8_stays_close_and_its_projection_is_put_right(form, tmp_path):
    needs(form, "int8")
    model = one_layer()
    export = make_export(model, FORMATS[form], "int8", tmp_path, images(256))
    assert export.images_cosine > 0.98
    assert export.calibration == "256 drawn"
    runtime, unseen = FORMATS[form].open(tmp_path, "int8"), pixels(20, seed=9)
    with torch.no_grad():
        wanted = image_embeddings(model, unseen)
    found = runtime.embed(unseen)
    assert torch.cosine_similarity(found, wanted).mean() > 0.97
    alone = torch.cat([runtime.embed(each[None]) for each in unseen])
    torch.testing.assert_close(found, alone, atol=1e-5, rtol=1e-4)  # no matter which batch
    assert runtime.content is not None


REPORTS = """
import sys
from pruning_mechanism.runtimes.unreported import TELEMETRY, unreported
for name in sys.argv[1:]:
    unreported(name)
print(*(name for name in sys.modules if name.split(".")[0] == TELEMETRY))
from openvino.tools.ovc import convert_impl, utils
print(convert_impl.tm.__name__, utils.tm.__name__)
"""


def test_openvino_sends_no_report_to_its_makers():
    pytest.importorskip("openvino")
    names = ["openvino", *(["nncf"] if installed("nncf") else [])]
    line = [sys.executable, "-c", REPORTS, *names]
    found = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, check=True)
    loaded, used = found.stdout.splitlines()[-2:]
    assert loaded == ""
    assert set(used.split()) == {"openvino.tools.ovc.telemetry_stub"}
