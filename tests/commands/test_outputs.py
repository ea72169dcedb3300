"""Where results go: several runs at once, kills, interrupts, and what is not ours.

`RUNS` in the environment sets how many races, kills and interrupts are tried; a few by default.
"""

import contextlib
import json
import multiprocessing
import os
import random
import resource
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from commands.errors import UsageError
from commands.flags import ConfigOption
from commands.inputs import Input
from commands.writing import belongings, renaming
from commands.writing.files import write_files
from commands.writing.outputs import check_output, finished_directory
from commands.writing.unfinished import put_in_order
from compress.command import run_command
from tests.lanes import examples

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals as Linux has them")
RUNS = int(os.environ.get("RUNS", examples(6, 12)))
FORK = multiprocessing.get_context("fork")
CONTENT = 20_000
FILES = 150


def write(directory: Path, content: str) -> None:
    """A result of three files that tell whether they are of one run, and whole."""
    for name in ("report.json", "report.md", "stages/weights"):
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text(content * CONTENT)


def read(directory: Path) -> str:
    """What `write` wrote, if it is whole and of one run."""
    found = {
        (directory / name).read_text() for name in ("report.json", "report.md", "stages/weights")
    }
    (content,) = found
    assert len(content) == CONTENT
    assert len(set(content)) == 1
    return content[0]


def finish(path: Path, content: str, overwrite: bool = False) -> None:
    with finished_directory(path, overwrite) as directory:
        write(directory, content)


def finish_late(path: Path, content: str, meanwhile, overwrite: bool = False) -> None:
    with finished_directory(path, overwrite) as directory:
        write(directory, content)
        meanwhile()


def hidden(directory: Path) -> list[str]:
    return [each.name for each in directory.iterdir() if each.name.startswith(".")]


def started(target, *arguments):
    """A process with its own session, so that no signal reaches the tests.

    Until a command sets its handlers, a signal ends it without a word.
    """

    def run() -> None:
        os.setsid()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        target(*arguments)

    process = FORK.Process(target=run)
    process.start()
    return process


@pytest.fixture(params=[True, False], ids=["renameat2", "portable"])
def system(request, monkeypatch):
    """A system that exchanges directories in one step, and one that doesn't."""
    if not request.param:
        monkeypatch.setattr(renaming, "_renameat2", lambda *_: False)


# -- two writers


def race(barrier, path: Path, content: str, said: Path) -> None:
    try:
        with finished_directory(path, overwrite=False) as directory:
            write(directory, content)
            barrier.wait(20)
    except UsageError as error:
        said.write_text(str(error))


def test_of_two_writers_one_has_the_place_and_the_other_says_so(system, tmp_path):
    for number in range(RUNS):
        path, barrier = tmp_path / f"out-{number}", FORK.Barrier(2)
        said = {each: tmp_path / f"said-{each}-{number}" for each in "ab"}
        runs = [started(race, barrier, path, each, said[each]) for each in "ab"]
        for run in runs:
            run.join(60)
        assert [run.exitcode for run in runs] == [0, 0]
        (loser,) = [each for each in "ab" if said[each].exists()]
        message = said[loser].read_text()
        assert f"another run finished {path} first" in message
        assert f"{path}-2" in message
        assert {read(path), read(tmp_path / f"out-{number}-2")} == {"a", "b"}
        assert read(tmp_path / f"out-{number}-2") == loser
    assert not hidden(tmp_path)


def test_a_result_that_is_kept_beside_takes_a_name_that_is_free(tmp_path):
    (tmp_path / "out-2").mkdir()
    with pytest.raises(UsageError, match=r"this run's own result is .*out-3$"):
        finish_late(tmp_path / "out", "a", lambda: finish(tmp_path / "out", "b"))
    assert (read(tmp_path / "out"), read(tmp_path / "out-3")) == ("b", "a")


def test_with_overwrite_a_result_that_came_meanwhile_is_replaced_too(system, tmp_path):
    with finished_directory(tmp_path / "out", overwrite=True) as directory:
        write(directory, "a")
        finish(tmp_path / "out", "b")
    assert read(tmp_path / "out") == "a"
    assert not hidden(tmp_path)


def test_what_is_put_into_the_earlier_result_meanwhile_is_not_deleted(tmp_path):
    finish(tmp_path / "out", "a")
    with pytest.raises(UsageError, match=r"notes.txt.*own result is .*out-2"):
        finish_late(
            tmp_path / "out",
            "b",
            lambda: (tmp_path / "out" / "notes.txt").write_text("years"),
            overwrite=True,
        )
    assert (tmp_path / "out" / "notes.txt").read_text() == "years"
    assert (read(tmp_path / "out"), read(tmp_path / "out-2")) == ("a", "b")


def two_pictures(barrier, directory: Path, content: bytes, said: Path) -> None:
    barrier.wait(20)
    try:
        write_files(directory, {"a.png": content, "a.svg": content}, overwrite=False)
    except UsageError as error:
        said.write_text(str(error))


def test_of_two_writers_of_pictures_one_has_both(system, tmp_path):
    for number in range(RUNS):
        place, barrier = tmp_path / f"out-{number}", FORK.Barrier(2)
        said = {each: tmp_path / f"said-{each}-{number}" for each in "ab"}
        runs = [
            started(two_pictures, barrier, place, each.encode() * 9, said[each]) for each in "ab"
        ]
        for run in runs:
            run.join(60)
        (loser,) = [each for each in "ab" if said[each].exists()]
        assert "first" in said[loser].read_text()
        assert (place / "a.png").read_bytes() == (place / "a.svg").read_bytes()
        assert sorted(each.name for each in place.iterdir()) == ["a.png", "a.svg"]


# -- kills and interrupts


def replace_again_and_again(path: Path) -> None:
    for content in "abcdefgh" * 1000:
        finish(path, content, overwrite=True)


def test_after_a_kill_the_next_run_puts_in_order(system, tmp_path, capsys):
    path, dice, left = tmp_path / "out", random.Random(0), 0
    finish(path, "z")
    for _ in range(2 * RUNS):
        run = started(replace_again_and_again, path)
        time.sleep(dice.uniform(0.02, 0.1))
        os.kill(run.pid, signal.SIGKILL)
        run.join()
        left += len(hidden(tmp_path))
        put_in_order(tmp_path)
        assert not hidden(tmp_path)
        read(path)
    assert left  # kills do leave something
    said = capsys.readouterr().err.splitlines()
    assert len(said) >= left
    assert all(str(tmp_path) in line for line in said)


def test_a_result_that_a_kill_left_without_its_place_is_put_back(tmp_path, capsys):
    finish(tmp_path / "out", "a")
    (tmp_path / "out").rename(tmp_path / f".out.{'0' * 12}.replaced")
    with pytest.raises(UsageError, match="exists already"):
        check_output(tmp_path / "out", overwrite=False)
    assert read(tmp_path / "out") == "a"
    assert "put" in capsys.readouterr().err


def test_a_place_that_was_only_claimed_is_no_reason_to_delete_the_earlier_result(tmp_path):
    finish(tmp_path / "out", "a")
    (tmp_path / "out").rename(tmp_path / f".out.{'0' * 12}.replaced")
    (tmp_path / "out").mkdir()
    put_in_order(tmp_path)
    assert read(tmp_path / "out") == "a"
    assert not hidden(tmp_path)


def test_what_a_run_is_working_on_is_left_alone(tmp_path):
    with finished_directory(tmp_path / "out", overwrite=False) as directory:
        put_in_order(tmp_path)
        assert directory.exists()
        write(directory, "a")
    assert read(tmp_path / "out") == "a"


def test_what_only_looks_like_an_unfinished_result_is_named_and_left(tmp_path, capsys):
    old = tmp_path / ".out.0123abcd.partial"  # without a lock nobody knows whether it is in use
    old.mkdir()
    (tmp_path / ".notes.partial").mkdir()
    finish(tmp_path / "out", "a")
    assert sorted(hidden(tmp_path)) == [".notes.partial", old.name]
    assert old.name in capsys.readouterr().err


@dataclass(frozen=True)
class SlowOptions(ConfigOption):
    """Writes a result.

    Example: none
    """

    output: Path = Path("out")
    """where"""


def slow(options: SlowOptions) -> None:
    with finished_directory(options.output, overwrite=True) as directory:
        for number in range(FILES):
            (directory / f"{number}.txt").write_text("a")
            time.sleep(0.001)


def slow_command(path: Path, said: Path) -> None:
    with open(said, "w") as file, contextlib.redirect_stderr(file):
        run_command(slow, SlowOptions, "slow", ["--output", str(path)])


@pytest.mark.parametrize("times", [1, 2, 5])
def test_an_interrupted_run_leaves_nothing_and_says_so(tmp_path, times):
    dice = random.Random(times)
    for number in range(RUNS):
        run = started(slow_command, tmp_path / "out", tmp_path / f"said-{number}")
        time.sleep(dice.uniform(0.0, 0.2))
        for _ in range(times):
            with contextlib.suppress(ProcessLookupError):
                os.kill(run.pid, dice.choice([signal.SIGINT, signal.SIGTERM]))
            time.sleep(dice.choice([0, 0.001, 0.02]))
        run.join(60)
        assert not hidden(tmp_path)
        if not (tmp_path / f"said-{number}").exists():  # it had hardly started
            continue
        said = (tmp_path / f"said-{number}").read_text()
        if run.exitcode == 130:
            assert said.endswith("interrupted: no unfinished result was left behind\n")
        elif run.exitcode == 0:  # it was done
            assert len(list((tmp_path / "out").glob("*.txt"))) == FILES
        else:  # before there was a handler
            assert run.exitcode < 0


def test_what_an_interrupt_cannot_clean_up_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("commands.writing.outputs.shutil.rmtree", lambda *_, **__: None)

    def interrupted(_options) -> None:
        with finished_directory(tmp_path / "out", overwrite=False):
            raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ending:
        run_command(interrupted, SlowOptions, "slow", [])
    assert ending.value.code == 130
    (left,) = hidden(tmp_path)
    assert f"left behind: {tmp_path / left}" in capsys.readouterr().err


def test_a_signal_in_the_last_step_is_acted_on_after_it(tmp_path, monkeypatch):
    finish(tmp_path / "out", "a")
    told = renaming.exchange

    def signalled(*names) -> bool:
        signal.raise_signal(signal.SIGINT)
        done = told(*names)
        signal.raise_signal(signal.SIGINT)
        return done

    def command(_options) -> None:
        finish(tmp_path / "out", "b", overwrite=True)

    monkeypatch.setattr("commands.writing.outputs.exchange", signalled)
    run_command(command, SlowOptions, "slow", [])
    assert read(tmp_path / "out") == "b"
    assert not hidden(tmp_path)


# -- what may be written, and what may be replaced


def test_inputs_are_never_written_to(tmp_path):
    model = tmp_path / "models" / "clip"
    finish(model, "a")
    inputs = (Input("--model", model, checkpoint=True),)
    for path, reason in (
        (model, "is --model"),
        (model.parent, "holds --model"),
        (model / "pruned", "lies inside --model"),
        (tmp_path / "models" / ".." / "models" / "clip", "is --model"),
    ):
        with pytest.raises(UsageError, match=reason):
            check_output(path, overwrite=True, inputs=inputs)
    (tmp_path / "link").symlink_to(model)
    with pytest.raises(UsageError, match="is --model"):
        check_output(tmp_path / "link", overwrite=True, inputs=inputs)
    beside = (Input("--corpus-dir", tmp_path),)
    check_output(tmp_path / "results" / "out", overwrite=True, inputs=beside)
    assert read(model) == "a"


@pytest.mark.parametrize("name", ["notes.txt", "stages/notes.txt", "more/notes.txt", ".hidden"])
def test_a_result_that_holds_more_than_itself_is_not_overwritten(tmp_path, name):
    finish(tmp_path / "out", "a")
    (tmp_path / "out" / name).parent.mkdir(exist_ok=True)
    (tmp_path / "out" / name).write_text("years")
    with pytest.raises(UsageError, match=name):
        check_output(tmp_path / "out", overwrite=True)


def test_an_empty_directory_in_a_result_is_not_overwritten_either(tmp_path):
    finish(tmp_path / "out", "a")
    (tmp_path / "out" / "mine").mkdir()
    with pytest.raises(UsageError, match="mine"):
        check_output(tmp_path / "out", overwrite=True)


@pytest.mark.parametrize("name", ["report.json", "model.safetensors", "compression.json"])
def test_a_folder_that_has_a_file_of_that_name_is_no_result(tmp_path, name):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).write_text('{"rows": []}')
    with pytest.raises(UsageError, match="not an earlier result"):
        check_output(tmp_path / "mine", overwrite=True)


def old_result(directory: Path) -> None:
    directory.mkdir()
    record = {"rule": "flip", "constraint": "mask 0.5", "base": "models/clip", "macs": 1}
    (directory / "compression.json").write_text(json.dumps(record))
    for name in ("config.json", "model.safetensors", "calibration.txt", "pruned_layers.py"):
        (directory / name).write_text("{}")


def test_a_result_from_before_the_marker_is_known_by_its_record(tmp_path):
    old_result(tmp_path / "out")
    finish(tmp_path / "out", "a", overwrite=True)
    assert read(tmp_path / "out") == "a"
    old_result(tmp_path / "other")
    (tmp_path / "other" / "train.py").write_text("years")
    with pytest.raises(UsageError, match=r"train\.py"):
        check_output(tmp_path / "other", overwrite=True)


def test_pictures_of_a_result_belong_to_it(tmp_path):
    finish(tmp_path / "out", "a")
    write_files(tmp_path / "out" / "stages", {"mask.png": b"1"}, overwrite=False)
    assert belongings.foreign(tmp_path / "out") == []
    finish(tmp_path / "out", "b", overwrite=True)
    assert not (tmp_path / "out" / "stages" / "mask.png").exists()


def test_a_linked_output_is_written_where_the_link_leads(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk" / "result")
    finish(tmp_path / "out", "a")
    finish(tmp_path / "out", "b", overwrite=True)
    assert (tmp_path / "out").is_symlink()
    assert read(tmp_path / "disk" / "result") == "b"
    assert not hidden(tmp_path)
    assert not hidden(tmp_path / "disk")


def test_where_nothing_can_be_written_is_known_before_the_work(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for path in (
        tmp_path / "file",
        tmp_path / "file" / "out",
        tmp_path / "circle" / "out",
        tmp_path / ("a" * 250),
        tmp_path / ("a" * 300) / "out",
        tmp_path / "/".join(["a" * 200] * 25),
        Path("/"),
        Path("/proc/none/out"),
    ):
        with (
            pytest.raises(UsageError) as error,
            finished_directory(path, overwrite=True),
        ):
            pytest.fail("the work must not start")
        assert "\n" not in str(error.value)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["circle", "file"]


def test_a_directory_that_may_not_be_written_to_is_known_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # who runs the tests may write anywhere
    with pytest.raises(UsageError, match="no permission to write"):
        check_output(tmp_path / "out", overwrite=False)


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o027, 0o002])
def test_results_have_the_permissions_that_the_user_gives_new_files(tmp_path, mask):
    before = os.umask(mask)
    try:
        with finished_directory(tmp_path / "out", overwrite=False) as directory:
            write(directory, "a")
            (directory / "report.md").chmod(0o600)  # as some libraries leave them
        write_files(tmp_path, {"a.png": b"1"}, overwrite=False)
    finally:
        os.umask(before)
    found = {each: each.stat().st_mode & 0o777 for each in (tmp_path / "out").rglob("*")}
    found |= {each: each.stat().st_mode & 0o777 for each in tmp_path.iterdir()}
    assert len(found) == 7
    for path, mode in found.items():
        assert mode == (0o777 if path.is_dir() else 0o666) & ~mask, path


def fill(path: Path, said: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (CONTENT // 2, CONTENT // 2))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with open(said, "w") as file, contextlib.redirect_stderr(file):
        run_command(lambda _: finish(path, "b", overwrite=True), SlowOptions, "slow", [])


def test_a_full_disk_is_one_line_and_costs_nothing_that_was_there(tmp_path):
    finish(tmp_path / "out", "a")
    run = started(fill, tmp_path / "out", tmp_path / "said")
    run.join(60)
    assert run.exitcode == 2
    said = (tmp_path / "said").read_text()
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert "large" in said  # what the system says of a file over the limit
    assert read(tmp_path / "out") == "a"
    assert not hidden(tmp_path)


def test_directories_made_for_a_result_that_fails_go_with_it(tmp_path):
    with (
        contextlib.suppress(ZeroDivisionError),
        finished_directory(tmp_path / "a" / "b" / "out", overwrite=False),
    ):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
