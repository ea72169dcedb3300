"""A stage computed by another runtime: the same embeddings, and a name that says if they aren't."""

import json
import shutil
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from cascade import Collection, ResumedStage, Stage
from cascade.collecting.recalling import recalled, recorded
from cascade.machines.joining import join
from cascade.stages.towers import Towers
from cascade.storing.errors import CollectionError
from pruning_mechanism import TowerError
from pruning_mechanism.runtimes.exports import RECORD, StaleExportError, place_in
from pruning_mechanism.runtimes.formats import FORMATS
from pruning_mechanism.runtimes.making import make_export
from pruning_mechanism.runtimes.needs import bfloat16_problem
from tests.conftest import tiny_clip, tiny_processor
from tests.pruning_mechanism.checkpoints.test_record import RECORD as RECORD_OF_ONE

pytest.importorskip("onnxruntime")
NATIVE = bfloat16_problem("cpu") is None
natively = pytest.mark.skipif(not NATIVE, reason="this processor has no products in bfloat16")


def one_layer(seed: int = 0):
    return tiny_clip(seed, num_hidden_layers=1)  # quick to export


@pytest.fixture(scope="module")
def unexported(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("unexported") / "tiny"
    one_layer().save_pretrained(directory)
    tiny_processor().save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def exported(unexported, tmp_path_factory) -> Path:
    """A tiny CLIP with an ONNX export in float32 beside its weights."""
    directory = Path(shutil.copytree(unexported, tmp_path_factory.mktemp("exported") / "tiny"))
    place = place_in(directory, "onnx", "float32")
    place.mkdir(parents=True)
    make_export(one_layer(), FORMATS["onnx"], "float32", place)
    return directory


@pytest.fixture(scope="module")
def plain(exported) -> Stage:
    return Stage.load(exported, batch_size=2)


def test_an_export_gives_the_same_embeddings_and_keeps_the_name(exported, plain, pictures):
    stage = Stage.load(exported, batch_size=2, runtime="onnxruntime")
    wanted = plain.encode_images(pictures)
    torch.testing.assert_close(stage.encode_images(pictures), wanted, atol=1e-5, rtol=0)
    assert stage.name == plain.name
    assert stage.text_name == plain.text_name
    assert (stage.runs_in.runtime, stage.runs_in.dtype) == ("onnxruntime", "float32")
    assert (plain.runs_in.runtime, plain.runs_in.dtype) == ("torch", "float32")


def test_where_no_export_lies_one_is_made_in_the_cache_and_taken_again(
    unexported, plain, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # not where other tests' towers are
    stage = Stage.load(unexported, batch_size=2, runtime="onnxruntime")
    (kept,) = tmp_path.rglob("runtimes/onnx-float32*")
    made = kept.parent
    before = (kept / RECORD).stat().st_mtime_ns
    again = Stage.load(unexported, batch_size=2, runtime="onnxruntime")
    assert (kept / RECORD).stat().st_mtime_ns == before
    assert stage.name == again.name == plain.name
    assert not [each for each in made.iterdir() if each.name.startswith(".")]


def test_weights_that_changed_after_the_export_are_refused(exported, tmp_path):
    directory = Path(shutil.copytree(exported, tmp_path / "changed"))
    one_layer(seed=1).save_pretrained(directory)
    with pytest.raises(StaleExportError, match="export of other weights"):
        Stage.load(directory, runtime="onnxruntime")
    with pytest.raises(StaleExportError):
        Stage.load(directory, runtime="auto", dtype="float32")
    assert Stage.load(directory).name  # torch reads no export


@natively
def test_bfloat16_has_a_name_of_its_own_and_texts_stay_in_float32(exported, plain, pictures):
    stage = Stage.load(exported, batch_size=2, dtype="bfloat16")
    wanted = plain.encode_images(pictures)
    found = stage.encode_images(pictures)
    assert torch.cosine_similarity(found, wanted).min() > 0.99
    assert not torch.allclose(found, wanted, atol=1e-6)
    assert stage.name != plain.name
    assert stage.text_name == plain.text_name
    assert torch.equal(stage.encode_texts(["red"]), plain.encode_texts(["red"]))
    assert stage.computes == "torch bfloat16"


@natively
def test_what_is_not_float32_is_written_down_and_recalled(exported, tmp_path):
    stage = Stage.load(exported, batch_size=2, dtype="bfloat16")
    record = recorded(stage)
    assert record.computes == "torch bfloat16"
    (again,) = recalled([record], tmp_path, Towers(batch_size=2, runtime="onnxruntime"))
    assert again.stage.name == stage.name
    (other,) = recalled([replace(record, computes=None)], tmp_path, Towers(batch_size=2))
    with pytest.raises(ValueError, match="is now"):
        other.encode_images([])


def test_what_was_float32_stays_so_in_another_runtime(exported, plain, tmp_path):
    (again,) = recalled([recorded(plain)], tmp_path, Towers(runtime="onnxruntime", batch_size=2))
    assert again.stage.name == plain.name
    assert again.stage.runs_in.runtime == "onnxruntime"


@natively
def test_a_collection_refuses_another_type(exported, plain, tmp_path):
    pytest.importorskip("lancedb")
    Collection.create(tmp_path / "c", [plain]).close()
    said = "one is computed in float32, the other in torch bfloat16, and embeddings of several"
    with pytest.raises(ValueError, match=said):
        Collection.open(tmp_path / "c", [Stage.load(exported, dtype="bfloat16")])


@natively
def test_collections_of_different_types_are_not_joined(exported, plain):
    other = Stage.load(exported, batch_size=2, dtype="bfloat16")
    with (
        Collection.in_memory([plain]) as ours,
        Collection.in_memory([other]) as theirs,
        pytest.raises(CollectionError, match="aren't mixed in one collection"),
    ):
        join(ours, theirs)


@natively
def test_each_stage_is_recalled_in_the_type_that_it_was_made_in(exported, plain, tmp_path):
    """Whatever the command that opens the collection says: float32 alone may run elsewhere."""
    last = Stage.load(exported, batch_size=2, dtype="bfloat16")
    records = [recorded(plain), recorded(last)]
    stages = recalled(records, tmp_path, Towers(runtime="onnxruntime", batch_size=2))
    found = [each.stage.runs_in for each in stages]
    assert [(each.runtime, each.dtype) for each in found] == [
        ("onnxruntime", "float32"),
        ("torch", "bfloat16"),
    ]


@natively
def test_a_stage_that_resumes_is_torchs(full, exported):
    other = Stage.load(exported, dtype="bfloat16")
    with pytest.raises(TowerError, match="not by torch bfloat16"):
        ResumedStage(full, other)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"runtime": "onnx"}, "runtime is one of 'torch', 'compile', 'onnxruntime', 'openvino'"),
        ({"dtype": "int4"}, "dtype is one of float32, float16, bfloat16, float8, int8"),
        (
            {"dtype": "int8"},
            "runtime 'torch' computes in float32 or bfloat16, not in int8, which onnxruntime and o",
        ),
        ({"dtype": "float16"}, "in float16 a CPU is slow, .* use dtype bfloat16 or float32"),
        ({"dtype": "float8"}, "not in float8, which takes a GPU"),
        ({"runtime": "compile", "dtype": "float8"}, "float8 on NVIDIA GPUs, not on cpu: use dtype"),
        ({"runtime": "compile", "dtype": "int8"}, "int8 on NVIDIA GPUs, not on cpu.*'openvino'"),
        ({"runtime": "auto", "dtype": "float16"}, "in float16 a CPU is slow"),
        ({"runtime": "auto", "dtype": "float8"}, "not in float8, which takes a GPU"),
        (
            {"runtime": "onnxruntime", "dtype": "bfloat16"},
            "which torch, compile and openvino do",
        ),
        ({"runtime": "onnxruntime", "device": "cuda"}, "runs on the CPU here, not on cuda"),
        ({"runtime": "onnxruntime", "attention": "eager"}, "leave one out"),
        ({"runtime": "onnxruntime", "dtype": "int8"}, "calibrated on images"),
    ],
)
def test_what_cannot_be_had_is_one_line(how, said, exported):
    if how.get("dtype") == "int8" and how.get("runtime"):
        pytest.importorskip("nncf")
    with pytest.raises(TowerError, match=said):
        Stage.load(exported, **how)


def test_a_missing_runtime_is_said_with_its_line(exported, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(TowerError, match=r"needs onnxruntime: pip install 'clip-cascade\[onnx\]'"):
        Stage.load(exported, runtime="onnxruntime")


@pytest.fixture
def made_for(exported, tmp_path):
    """A copy of a checkpoint whose record says what it was made to run in."""

    def made(runtime: str, dtype: str | None) -> Path:
        directory = Path(shutil.copytree(exported, tmp_path / f"{runtime}-{dtype}"))
        own = replace(RECORD_OF_ONE, runtime=runtime, dtype=dtype)
        (directory / "compression.json").write_text(json.dumps(asdict(own)))
        return directory

    return made


def test_a_stage_runs_in_what_its_record_says_unless_told_otherwise(made_for, plain, pictures):
    directory = made_for("onnxruntime", "float32")
    stage = Stage.load(directory, batch_size=2)
    assert (stage.runs_in.runtime, stage.runs_in.dtype) == ("onnxruntime", "float32")
    wanted = plain.encode_images(pictures)
    torch.testing.assert_close(stage.encode_images(pictures), wanted, atol=1e-5, rtol=0)
    for told in ({"runtime": "torch"}, {"attention": "eager"}):
        assert Stage.load(directory, **told).runs_in.runtime == "torch"
    assert Towers().lending(str(directory)).runs_in.runtime == "torch"


@natively
def test_a_type_on_record_is_computed_in(made_for, plain):
    stage = Stage.load(made_for("torch", "bfloat16"))
    assert (stage.runs_in.runtime, stage.runs_in.dtype) == ("torch", "bfloat16")
    assert stage.name != plain.name


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (
            ("openvino", None),
            r"openvino, float32, .*'clip-cascade\[openvino\]'; or load",
        ),
        (("tensorrt", None), "runtime is one of 'torch'.*load it with runtime='torch'"),
        (("torch", "int4"), "dtype is one of float32.*load it with runtime='torch'"),
    ],
)
def test_a_record_that_cannot_be_followed_is_said_with_what_to_do(
    made_for, monkeypatch, place, said
):
    monkeypatch.setitem(sys.modules, "openvino", None)
    directory = made_for(*place)
    with pytest.raises(TowerError, match=said):
        Stage.load(directory)
    assert Stage.load(directory, runtime="torch").runs_in.dtype == "float32"


def test_auto_measures_once_and_says_why(exported, plain, pictures, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    stage = Stage.load(exported, batch_size=2, runtime="auto", dtype="float32")
    choice = stage.runs_in
    assert set(choice.seconds) == {"torch float32", "onnxruntime float32"}
    assert choice.seconds[f"{choice.runtime} {choice.dtype}"] == min(choice.seconds.values())
    assert "clip-cascade[openvino]" in choice.left_out["openvino float32"]
    again = Stage.load(exported, batch_size=2, runtime="auto", dtype="float32")
    assert again.runs_in == choice  # seconds too: nothing was measured
    assert stage.name == plain.name
    torch.testing.assert_close(
        stage.encode_images(pictures), plain.encode_images(pictures), atol=1e-5, rtol=0
    )


def test_any_thread_may_embed(exported, plain, pictures):
    from concurrent.futures import ThreadPoolExecutor

    stage = Stage.load(exported, batch_size=2, runtime="onnxruntime")
    wanted = plain.encode_images(pictures)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(stage.encode_images, [pictures] * 8):
            torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
