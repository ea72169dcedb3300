import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from commands.errors import UsageError
from commands.flags import ConfigOption
from commands.writing.outputs import finished_directory
from compress.command import run_command


@dataclass(frozen=True)
class Options(ConfigOption):
    """An example.

    Example: none
    """

    share: float = 0.5
    """a number"""
    heads: tuple[int, ...] = (22,)
    """several numbers"""
    place: Path | None = None
    """a path"""
    overwrite: bool = False
    """a switch"""


def parsed(arguments) -> Options:
    found = []
    run_command(found.append, Options, "example", [str(each) for each in arguments])
    return found[0]


def exit_of(call, capsys) -> tuple[int, str]:
    with pytest.raises(SystemExit) as caught:
        call()
    return caught.value.code, capsys.readouterr().err


def test_a_configuration_file_sets_every_kind_of_flag(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text('share = 0.25\nheads = [1, 2]\nplace = "a/b"\noverwrite = true\n')
    assert parsed(["--config", path]) == Options(path, 0.25, (1, 2), Path("a/b"), True)


@pytest.mark.parametrize("before", [True, False])
def test_a_flag_on_the_command_line_wins(tmp_path, before):
    path = tmp_path / "c.toml"
    path.write_text("share = 0.25\nheads = [1, 2]\noverwrite = false\n")
    flags = ["--share", 0.75, "--heads", 7]
    config = [f"--config={path}"]
    found = parsed(flags + config if before else config + flags)
    assert (found.share, found.heads, found.overwrite) == (0.75, (7,), False)


@pytest.mark.parametrize("content", ["shares = 1", "share = ", None])
def test_a_bad_configuration_file_is_one_line_and_status_2(tmp_path, capsys, content):
    path = tmp_path / "c.toml"
    if content is not None:
        path.write_text(content)
    code, message = exit_of(lambda: parsed(["--config", path]), capsys)
    assert code == 2
    assert message.startswith(f"error: --config {path}: ")
    assert message.count("\n") == 1


def test_a_users_error_is_one_line_and_status_2(capsys):
    def main(_):
        raise UsageError("what is wrong\nand what to do")

    code, message = exit_of(lambda: run_command(main, Options, "example", []), capsys)
    assert (code, message) == (2, "error: what is wrong and what to do\n")


def test_what_the_system_refuses_a_library_is_one_line(tmp_path, capsys):
    def main(_):
        save_file({"a": np.zeros(1)}, tmp_path / "none" / "a.safetensors")

    code, message = exit_of(lambda: run_command(main, Options, "example", []), capsys)
    assert code == 2
    assert message.startswith("error: a file can't be read or written: ")
    assert "No such file or directory" in message
    assert message.count("\n") == 1


def test_a_programming_error_is_not_hidden():
    def main(_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_command(main, Options, "example", [])


def test_help_fits_a_screen_and_shows_defaults_and_an_example(capsys):
    with pytest.raises(SystemExit):
        run_command(print, Options, "example", ["--help"])
    shown = capsys.readouterr().out
    assert "Example:" in shown
    assert "0.5" in shown
    assert shown.count("\n") < 40


def test_results_appear_whole(tmp_path):
    with finished_directory(tmp_path / "out", overwrite=False) as directory:
        (directory / "report.json").write_text("1")
        assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "report.json").read_text() == "1"


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_failed_work_leaves_nothing_and_keeps_what_was_there(tmp_path, failure):
    with finished_directory(tmp_path / "out", overwrite=False) as directory:
        (directory / "report.json").write_text("old")

    def fail() -> None:
        with finished_directory(tmp_path / "out", overwrite=True) as directory:
            (directory / "report.json").write_text("new")
            raise failure

    with pytest.raises(failure):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "report.json").read_text() == "old"


def test_a_finished_result_is_replaced_only_if_told_to(tmp_path):
    for content in ("old", "new"):
        with finished_directory(tmp_path / "out", overwrite=True) as directory:
            (directory / "report.json").write_text(content)
    assert (tmp_path / "out" / "report.json").read_text() == "new"
    with (
        pytest.raises(UsageError, match="pass --overwrite"),
        finished_directory(tmp_path / "out", overwrite=False),
    ):
        pytest.fail("the work must not start")


def test_what_is_no_result_is_never_overwritten(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years")
    with (
        pytest.raises(UsageError, match="not an earlier result"),
        finished_directory(tmp_path / "thesis", overwrite=True),
    ):
        pytest.fail("the work must not start")
    assert (tmp_path / "thesis" / "chapter.tex").exists()


@pytest.fixture
def interruptible():
    """SIGINT interrupts, also where a shell that runs the tests in its background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_that_a_library_made_another_error_of_is_one_still(capsys):
    def importing(_options) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except BaseException:
            raise ModuleNotFoundError("could not import") from None

    with pytest.raises(SystemExit) as ending:
        run_command(importing, Options, "example", [])
    assert ending.value.code == 130
    assert capsys.readouterr().err.startswith("interrupted:")
