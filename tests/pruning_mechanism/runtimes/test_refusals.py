"""What a runtime can't do is one line that says what to do, before anything is searched."""

import shutil
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from pruning_mechanism import TowerError
from pruning_mechanism.runtimes import needs
from pruning_mechanism.runtimes.exports import (
    RECORD,
    StaleExportError,
    digests,
    place_in,
    read_export,
)
from pruning_mechanism.runtimes.formats import FORMATS
from pruning_mechanism.runtimes.graph import write_onnx
from pruning_mechanism.runtimes.in_openvino import converted
from pruning_mechanism.runtimes.in_torch import TorchRuntime
from pruning_mechanism.runtimes.making import make_export
from pruning_mechanism.runtimes.table import RUNTIMES, Subject, check_known, exported, make_runtime
from tests.conftest import tiny_clip
from tests.pruning_mechanism.runtimes.conftest import pixels
from tests.pruning_mechanism.test_export import one_layer

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    """A tower with an export to ONNX in float32 beside its weights."""
    directory = tmp_path_factory.mktemp("refusals") / "tower"
    model, place = one_layer(), place_in(directory, "onnx", "float32")
    place.mkdir(parents=True)
    make_export(model, FORMATS["onnx"], "float32", place)
    return Subject(model, directory)


def said(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def test_a_processor_without_bfloat16_is_told_of_the_other_types(monkeypatch):
    monkeypatch.setattr(needs, "_cpu_has_bfloat16", lambda: False)
    for runtime in ("torch", "compile", "openvino"):
        pytest.importorskip("openvino")
        with pytest.raises(TowerError, match=r"no products in bfloat16.*float32 or int8") as error:
            check_known(runtime, "bfloat16")
        said(error)


def test_a_gpu_is_told_what_it_lacks_for_8_bits(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(TowerError, match="sees no NVIDIA GPU here") as error:
        check_known("compile", "float8", "cuda")
    said(error)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "A GPU")
    for capability, missing in (((7, 5), ("float8", "int8")), ((8, 0), ("float8",)), ((9, 0), ())):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, own=capability: own)
        for dtype in ("float8", "int8"):
            if dtype not in missing:
                check_known("compile", dtype, "cuda")
                continue
            lacks = rf"A GPU has no products in {dtype}.* needs 8\..*use dtype float16"
            with pytest.raises(TowerError, match=lacks) as error:
                check_known("compile", dtype, "cuda")
            said(error)
    check_known("torch", "float16", "cuda")
    check_known("torch", "float16", "mps")


def test_a_gpu_without_bfloat16_is_told_of_a_type_that_it_has(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda _: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "A GPU")
    with pytest.raises(TowerError, match="A GPU has no products in bfloat16: use dtype float16"):
        check_known("compile", "bfloat16", "cuda")
    check_known("compile", "float16", "cuda")


def test_an_export_that_was_moved_to_the_place_of_another_type_is_refused(subject, tmp_path):
    shutil.copytree(subject.place / "onnx" / "float32", tmp_path / "onnx" / "int8")
    with pytest.raises(StaleExportError, match=r"in float32: it belongs in .*float32") as error:
        make_runtime(Subject(subject.model, tmp_path), RUNTIMES["onnxruntime"], "int8")
    said(error)


def test_an_export_of_another_towers_weights_is_refused(subject):
    other = Subject(tiny_clip(seed=1, num_hidden_layers=1), subject.place)
    with pytest.raises(StaleExportError, match=r"other weights or settings.*--overwrite") as error:
        make_runtime(other, RUNTIMES["onnxruntime"], "float32")
    said(error)


def test_a_graph_that_its_program_refuses_is_one_line(subject, tmp_path):
    """Such as one of a later version than what is installed here."""
    place = tmp_path / "onnx" / "float32"
    shutil.copytree(subject.place / "onnx" / "float32", place)
    graph = onnx.load(place / "model.onnx")
    graph.opset_import[0].version = 9999
    onnx.save(graph, place / "model.onnx")
    resign(place)
    with pytest.raises(TowerError, match=r"onnxruntime refuses the export in .*'torch'") as error:
        make_runtime(Subject(subject.model, tmp_path), RUNTIMES["onnxruntime"], "float32")
    said(error)


def resign(place: Path) -> None:
    """Let a record name the files as they are now."""
    record = read_export(place)
    (place / RECORD).unlink()
    replace(record, files=digests(place)).write(place)


def test_an_export_in_the_cache_that_was_damaged_is_made_anew(subject):
    alone = Subject(subject.model, None)
    place = exported(alone, FORMATS["onnx"], "float32")
    graph = place / "model.onnx"
    whole = graph.read_bytes()
    graph.write_bytes(whole[:-1])
    assert exported(alone, FORMATS["onnx"], "float32") == place
    assert len(graph.read_bytes()) == len(whole)
    make_runtime(alone, RUNTIMES["onnxruntime"], "float32")


def test_a_tower_that_onnx_cannot_say_is_one_line(tmp_path, monkeypatch):
    model = one_layer()

    class Unsaid(nn.Module):
        def forward(self, pixels):
            return torch.linalg.eigh(pixels[:, 0] @ pixels[:, 0].mT)[0]

    model.vision_model.embeddings.patch_embedding = Unsaid()
    with pytest.raises(TowerError, match=r"can't be said as an ONNX graph.*'torch'") as error:
        write_onnx(model, tmp_path / "model.onnx")
    said(error)


def test_a_graph_that_openvino_cannot_say_is_one_line(tmp_path):
    pytest.importorskip("openvino")
    given = [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])]
    made = [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])]
    node = onnx.helper.make_node("NoSuchOperation", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "unknown", given, made)
    onnx.save(onnx.helper.make_model(graph), tmp_path / "model.onnx")
    with pytest.raises(TowerError, match="OpenVINO can't say what this tower does") as error:
        converted(tmp_path / "model.onnx")
    said(error)


def test_what_torch_compile_refuses_is_one_line(monkeypatch):
    from torch._dynamo.exc import Unsupported

    runtime = TorchRuntime(one_layer(), "float32", compiled=True)

    def refuse(*_):
        raise Unsupported("data-dependent branching\nand much more")

    monkeypatch.setattr(runtime, "_embedder", refuse)
    with pytest.raises(TowerError, match=r"torch.compile can't make a program.*'torch'") as error:
        runtime.embed(pixels(2))
    said(error)
