"""The command writes an export beside the weights, whole or not at all, and tells its parity."""

import pytest

from cascade import Stage
from commands.writing.belongings import foreign, mark
from compress.command import run_command
from compress.export import ExportTowerOptions, main
from pruning_mechanism.runtimes.exports import read_export
from tests.conftest import tiny_clip, tiny_processor

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """A result's directory, whose files are marked as its own."""
    directory = tmp_path_factory.mktemp("result") / "first"
    tiny_clip(num_hidden_layers=1).save_pretrained(directory)  # quick to export
    tiny_processor().save_pretrained(directory)
    mark(directory)
    return directory


def run(*line) -> None:
    run_command(main, ExportTowerOptions, "compress.export", [str(each) for each in line])


def refusal(capsys, *line) -> str:
    with pytest.raises(SystemExit) as ended:
        run(*line)
    assert ended.value.code == 2
    (said,) = capsys.readouterr().err.splitlines()[-1:]
    return said


def test_an_export_is_made_told_found_and_belongs_to_the_result(result, folder, capsys):
    corpus = ("--corpus", "folder", "--corpus-dir", folder)
    run(result, "--to", "onnx", "--samples", 8, *corpus)
    export = read_export(result / "onnx" / "float32")
    shown = capsys.readouterr().out
    assert "calibration images" in shown
    assert f"{export.images_cosine:.6f}" in shown
    assert export.images == 8
    assert export.calibration == "8 images of folder train, seed 0"
    assert foreign(result) == []  # --overwrite of the result takes its exports along
    assert Stage.load(result, runtime="onnxruntime").name == Stage.load(result).name
    assert "exists already" in refusal(capsys, result, "--to", "onnx", *corpus)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (("openai/none",), "is no directory, and an export lies beside its weights"),
        (("--to", "onnx", "--dtype", "bfloat16"), "not in bfloat16"),
    ],
)
def test_what_cannot_be_made_is_one_line_and_leaves_nothing(line, said, result, capsys):
    place = () if line[0].startswith("openai") else (result,)
    assert said in refusal(capsys, *place, *line)
    assert not (result / "onnx" / "bfloat16").exists()


def test_a_directory_that_is_no_checkpoint_gets_no_export(tmp_path, capsys):
    assert "config.json" in refusal(capsys, tmp_path, "--to", "onnx", "--samples", 8)
    assert list(tmp_path.iterdir()) == []
