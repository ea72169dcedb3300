"""A result finds the checkpoint that it was made from, wherever both lie by now, and no other."""

import json
import shutil

import huggingface_hub.constants
import pytest

from cascade import Stage
from compress import align, flip, recover
from compress.command import run_command
from compress.errors import UserError
from compress.making.checkpoints import find_base, remember
from evaluation import cascade
from evaluation.reports.report import Report
from pruning_mechanism import read_record
from pruning_mechanism.checkpoints.checkpoint import weights_fingerprint
from tests.conftest import tiny_clip, tiny_processor


def checkpoint(directory, seed: int, **vision):
    directory.parent.mkdir(parents=True, exist_ok=True)
    tiny_clip(seed, **vision).save_pretrained(directory)
    tiny_processor().save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Two projects, each with a checkpoint of that name."""
    place = tmp_path_factory.mktemp("written")
    for number, name in enumerate(("a", "b")):
        checkpoint(place / name / "models" / "clip", number)
    return place


@pytest.fixture
def projects(written, tmp_path, monkeypatch):
    """The two projects, and a cache that knows neither."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return shutil.copytree(written, tmp_path, dirs_exist_ok=True)


@pytest.fixture
def made(projects, folder, monkeypatch):
    """made(module, …flags) -> runs a command on the folder corpus."""

    def run(module, options, *flags: str) -> None:
        given = ["--corpus", "folder", "--corpus-dir", str(folder), "--samples", "12", *flags]
        run_command(module.main, options, "command", given)

    return run


@pytest.fixture
def result(projects, made, monkeypatch):
    """A result of project a, whose base was named by a relative path."""
    monkeypatch.chdir(projects / "a")
    made(flip, flip.FlipOptions, "--model", "models/clip", "--output", "results/x")
    return projects / "a" / "results" / "x"


def aligned(made, result, *flags: str):
    output = result.with_name("aligned")
    made(align, align.AlignCommandOptions, "--model", str(result), "--output", str(output), *flags)
    return output


def test_a_result_is_aligned_to_its_own_base_from_anywhere(projects, result, made, monkeypatch):
    monkeypatch.chdir(projects / "b")  # where a checkpoint of the same name lies
    own, record = projects / "a" / "models" / "clip", read_record(result)
    assert find_base(record, result) == str(own)
    output = aligned(made, result)
    assert read_record(output).base_fingerprint == weights_fingerprint(own)
    assert read_record(output).chain == ("flip mask 0.5", "align ridge")
    stages = [Stage.load(str(each)) for each in (output, own, projects / "b" / "models" / "clip")]
    images = [each.read_bytes() for each in sorted(made_images(made))]
    found, mine, other = (each.encode_images(images) for each in stages)
    assert (found * mine).sum(1).mean() > (found * other).sum(1).mean() + 0.2


def made_images(made):
    folder = made.__closure__[0].cell_contents
    return (folder / "train").glob("*.png")


def test_it_is_found_where_it_was_seen_last(projects, result, monkeypatch):
    elsewhere = projects / "elsewhere" / "other-name"
    shutil.copytree(projects / "a" / "models" / "clip", elsewhere)
    shutil.rmtree(projects / "a" / "models")
    monkeypatch.chdir(projects)
    with pytest.raises(UserError, match="name it as the target"):
        find_base(read_record(result), result)
    remember(weights_fingerprint(elsewhere), elsewhere)
    assert find_base(read_record(result), result) == str(elsewhere)


def test_it_is_found_when_a_whole_project_has_moved(projects, result, monkeypatch):
    (projects / "a").rename(projects / "moved")
    monkeypatch.chdir(projects / "b")
    moved = projects / "moved" / "results" / "x"
    assert find_base(read_record(moved), moved) == str(projects / "moved" / "models" / "clip")


def test_a_checkpoint_with_its_name_is_never_taken_for_it(projects, result, monkeypatch, capsys):
    shutil.rmtree(projects / "a" / "models")
    monkeypatch.chdir(projects / "b" / "models")
    with pytest.raises(UserError) as error:
        find_base(read_record(result), result)
    message, digits = str(error.value), read_record(result).base_fingerprint.split()[1]
    other = weights_fingerprint(projects / "b" / "models" / "clip").split()[1]
    assert f"was made from clip (sha256 {digits[:12]})" in message
    assert (
        f"{projects / 'b' / 'models' / 'clip'} has other weights (sha256 {other[:12]})" in message
    )
    assert "the target" in message
    assert "\n" not in message


@pytest.mark.parametrize("absolute", [True, False])
def test_records_from_before_have_paths(projects, result, monkeypatch, absolute):
    path = result / "compression.json"
    record = json.loads(path.read_text())
    record["base"] = str(projects / "a" / "models" / "clip") if absolute else "models/clip"
    path.write_text(json.dumps(record))
    monkeypatch.setenv("XDG_CACHE_HOME", str(projects / "none"))
    monkeypatch.chdir(projects / "b")
    assert find_base(read_record(result), result) == str(projects / "a" / "models" / "clip")


def test_another_last_stage_is_named_and_then_said(projects, result, made, monkeypatch, capsys):
    other = projects / "b" / "models" / "clip"
    output = aligned(made, result, "--target", str(other))
    record = read_record(output)
    assert record.base_fingerprint == weights_fingerprint(projects / "a" / "models" / "clip")
    assert record.settings["target_fingerprint"] == weights_fingerprint(other)
    assert any("isn't what it was made from" in each for each in record.notes)
    assert "note: aligned to clip" in capsys.readouterr().out


def test_a_last_stage_of_another_dimension_is_refused(projects, result, made, capsys):
    model = tiny_clip(2, projection_dim=12)
    wider = projects / "wider"
    type(model)(type(model.config)(
        vision_config=model.config.vision_config.to_dict(),
        text_config=model.config.text_config.to_dict() | {"projection_dim": 12},
        projection_dim=12,
    )).save_pretrained(wider)  # fmt: skip
    tiny_processor().save_pretrained(wider)
    with pytest.raises(SystemExit):
        aligned(made, result, "--target", str(wider))
    assert "embeds into 12 dimensions" in capsys.readouterr().err


def test_what_is_not_aligned_needs_no_base(projects, result, made):
    shutil.rmtree(projects / "a" / "models")
    output = result.with_name("unaligned")
    flags = ("--model", str(result), "--align", "none", "--output", str(output))
    made(flip, flip.FlipOptions, "--mask", "0.25", *flags)
    assert read_record(output).base == "clip"


def test_a_hubs_checkpoint_is_taken_at_the_revision_on_record(projects, result, monkeypatch):
    revision = "0123456789abcdef0123456789abcdef01234567"
    cached = projects / "hub" / "models--owner--clip" / "snapshots" / revision
    shutil.copytree(projects / "a" / "models" / "clip", cached)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(projects / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    checkpoint(projects / "a" / "owner" / "clip", 1)  # a directory of that name is not it
    path = result / "compression.json"
    record = json.loads(path.read_text()) | {"base": "owner/clip"}
    path.write_text(json.dumps(record | {"base_fingerprint": f"revision {revision}"}))
    assert find_base(read_record(result), result) == str(cached)
    path.write_text(json.dumps(record | {"base_fingerprint": f"revision {revision[::-1]}"}))
    with pytest.raises(UserError, match="name it as the target"):
        find_base(read_record(result), result)
    path.write_text(json.dumps(record | {"base_fingerprint": "revision unknown"}))
    with pytest.raises(UserError, match="isn't on record"):
        find_base(read_record(result), result)


def test_where_nothing_can_be_noted_nothing_fails(projects, monkeypatch):
    (projects / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(projects / "file"))
    remember("sha256 00", projects)
    monkeypatch.setenv("XDG_CACHE_HOME", str(projects / "cache"))
    (projects / "cache" / "clip-cascade").mkdir(parents=True)
    for content in ("{", "[1]", '{"sha256 00": 3}', "\udcff".encode("utf-8", "surrogateescape")):
        path = projects / "cache" / "clip-cascade" / "checkpoints.json"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        remember("sha256 01", projects)
        assert json.loads(path.read_text()) == {"sha256 01": str(projects)}


def test_a_fingerprint_is_of_all_weights_in_order_and_follows_changes(tmp_path):
    import hashlib

    parts = {"a.safetensors": b"1" * 3_000_000, "b.safetensors": b"2"}
    for name, content in parts.items():
        (tmp_path / name).write_bytes(content)
    whole = hashlib.sha256(b"".join(parts.values())).hexdigest()
    assert weights_fingerprint(tmp_path) == f"sha256 {whole}"
    (tmp_path / "b.safetensors").write_bytes(b"3" * 2)
    assert weights_fingerprint(tmp_path) != f"sha256 {whole}"


def published(directory, *secrets) -> list[str]:
    """Files of a result that hold one of these."""
    return [
        f"{each}: {secret}"
        for each in directory.rglob("*")
        if each.is_file()
        for secret in secrets
        if str(secret).encode() in each.read_bytes()
    ]


def test_no_result_publishes_where_anything_lies(projects, made, folder, monkeypatch):
    monkeypatch.chdir(projects / "a")
    model = str(projects / "a" / "models" / "clip")
    made(flip, flip.FlipOptions, "--model", model, "--output", "results/x")
    made(recover, recover.RecoverOptions, "--model", "../a/models/clip", "--output", "results/y",
         "--curve-samples", "8", "--repair-samples", "8")  # fmt: skip
    flags = ("--model", model, "--output", str(projects / "report"), "--m", "10")
    flags += ("--stage", "results/x", "../a/results/y", "--repetitions", "1")
    made(cascade, cascade.CascadeOptions, *flags)
    secrets = (projects, folder, "models/clip", "results/x", "../a")
    for directory in (projects / "a" / "results", projects / "report"):
        assert published(directory, *secrets) == []
    command = Report.load(projects / "report" / "report.json").command
    assert "--model clip --output report --m 10 --stage x y" in command


def test_a_stage_of_another_checkpoint_is_measured_only_if_told_to(
    projects, result, made, monkeypatch, capsys
):
    other = str(projects / "b" / "models" / "clip")
    flags = ("--model", other, "--m", "10", "--repetitions", "1", "--stage", str(result))
    with pytest.raises(SystemExit):
        made(cascade, cascade.CascadeOptions, *flags, "--output", str(projects / "one"))
    message = capsys.readouterr().err.splitlines()[-1]
    assert "was made from another checkpoint" in message
    assert "--other-base" in message
    made(cascade, cascade.CascadeOptions, *flags, "--output", str(projects / "two"), "--other-base")
    assert len(Report.load(projects / "two" / "report.json").rows) == 1
