"""A server answers the search command in place of a process of its own, with the same output."""

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from fastapi.testclient import TestClient

from cascade import Collection
from cascade.answers import Terms, Wanted
from cascade.collecting.record import Record
from cascade.search import SearchOptions, ask_server
from cascade.search import main as search_main
from cascade.serve import ServeOptions
from cascade.serve import main as serve_main
from cascade.serving.asking import asked, socket_of
from cascade.serving.running import Allowed, guarded
from cascade.terminal.command import run_command
from tests.cascade.photos.conftest import encoded
from tests.fresh import Process
from tests.lanes import sweep

ROOT = Path(__file__).resolve().parents[3]
WARM = """
import runpy, sys
sys.argv[1:] = {line}
runpy.run_module("cascade.search", run_name="__main__", alter_sys=True)
assert not {{"torch", "transformers", "lancedb", "fastapi", "PIL"}} & set(sys.modules)
"""


@pytest.fixture
def ran(capsys):
    """ran(*line, cold=…) -> (exit status, standard output, standard error) of a search."""

    def run(*line, cold=False, main=search_main, options=SearchOptions):
        status, instead = 0, None if cold else ask_server
        try:
            run_command(main, options, "cascade.search", list(map(str, line)), instead)
        except SystemExit as ended:
            status = ended.code
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def without_times(text):
    """The output of --explain but for what the clock says."""
    return [line for line in text.splitlines() if "ms" not in line and "│     " not in line]


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def posted(url, body, kind):
    request = Request(url, body, {"Content-Type": kind})
    with urlopen(request, timeout=60) as answer:
        return json.load(answer)


def never(options):
    raise AssertionError("this process was to search itself")


def test_a_warm_search_is_a_cold_one_without_loading(served, place, photos, ran, tmp_path):
    (tmp_path / "queries").write_text("disc\na red star\n")
    lines = [
        [place, "a red disc", "-k", 4],
        [place, "a red disc", "-k", 8, "--m", 5, "--json"],
        [place, "disc", "--like", photos / "1.png", "--without", "red", "--json"],
        [place, "--queries", tmp_path / "queries", "-k", 2, "--json"],
        [place, "a red disc", "--explain"],
        [place, "a red star", "--refined", "--json"],
    ]
    cold = [ran(*line, cold=True) for line in lines]
    wrong = ran(place, "disc", "--without", "disc", cold=True)
    with served():
        (found,) = [path for path in socket_of(place).parent.iterdir() if path.suffix == ".sock"]
        assert stat.S_IMODE(found.stat().st_mode) == 0o600
        for line, expected in zip(lines, cold, strict=True):
            status, out, _ = ran(*line, main=never)
            assert (status, without_times(out)) == (0, without_times(expected[1]))
        assert ran(place, "disc", "--without", "disc", main=never) == wrong
        program = WARM.format(line=[str(place), "a red disc", "-k", "4"])
        warm = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert warm.stdout == cold[0][1]
    assert not found.exists()


def test_cold_and_another_device_and_another_collection_are_not_for_the_server(
    served, place, ran, tmp_path
):
    queries = [Wanted("disc", ["disc"])]
    with served() as client:
        assert asked(place, queries, Terms(1), "cpu") is not None
        assert not ask_server(SearchOptions(place, "disc", cold=True))
        assert asked(place, queries, Terms(1), "mps") is None
        assert asked(tmp_path / "other", queries, Terms(1), "cpu") is None
        anew = shutil.copytree(place, tmp_path / "anew")
        place.rename(tmp_path / "moved")
        anew.rename(place)
        assert asked(place, queries, Terms(1), "cpu") is None
        assert client.get("/status").status_code == 200


def test_what_was_planned_is_the_server_s_at_once_and_what_was_migrated_is_not(served, place):
    queries = [Wanted("disc", ["disc"])]

    def ranked():
        (answer,) = asked(place, queries, Terms(1), "cpu")
        return [step.images for step in answer.steps][1]

    with served():
        assert ranked() == 3
        for m in (4, 2):
            with Collection.open(place) as planning:
                planning.adopt([m])
            assert ranked() == m
        record = Record.read(place)
        replace(record, generation=record.generation + 1).write(place)
        assert asked(place, queries, Terms(1), "cpu") is None


def test_a_server_that_has_its_own_m_answers_those_who_say_theirs(place, stages):
    queries = [Wanted("disc", ["disc"])]
    with Collection.open(place, stages, m=[5]) as other, TestClient(guarded(other, Allowed())):
        assert asked(place, queries, Terms(1), "cpu") is None
        assert asked(place, queries, Terms(1, [4]), "cpu") is not None


def test_what_a_killed_server_left_is_no_server(served, place, runtime):
    queries, where = [Wanted("disc", ["disc"])], socket_of(place)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(where))
    assert where.exists()
    assert asked(place, queries, Terms(1), "cpu") is None
    with served(), served():  # the second one finds the place taken
        assert asked(place, queries, Terms(1), "cpu") is not None
    runtime.chmod(0o777)  # others may have put a socket there
    assert socket_of(place) is None


def test_a_server_that_does_not_answer_is_not_waited_for(place, monkeypatch):
    monkeypatch.setattr("cascade.serving.asking._SECONDS_TO_ACCEPT", 0.1)
    where = socket_of(place)
    with socket.socket(socket.AF_UNIX) as stopped:
        stopped.bind(str(where))
        stopped.listen(1)
        assert asked(place, [Wanted("disc", ["disc"])], Terms(1), "cpu") is None


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
@pytest.mark.parametrize(
    "how", sweep([signal.SIGTERM, signal.SIGINT, signal.SIGKILL], [signal.SIGTERM])
)
def test_however_it_ends_nothing_that_was_reported_is_lost(place, how):
    line = ["-m", "cascade.serve", place, "--port", "0", "--allow-upload"]
    running = Process(*line, cwd=ROOT)
    said = Path(running.streams.name, "out")
    text = wait_for(lambda: said.exists() and "photos at" in said.read_text() and said.read_text())
    home = text.split(" at ")[1].split()[0]
    hits = posted(f"{home}/search", b'{"text": "disc", "k": 3}', "application/json")["hits"]
    assert [hit["stage"] for hit in hits] == [1, 1, 1]
    added = posted(f"{home}/images", encoded("orange"), "image/png")
    assert added["new"]
    running.send_signal(how)
    ended = running.wait()
    with Collection.open(place) as collection:
        assert len(collection) == 9
        assert collection.row_of(added["id"]).uri.startswith("file://")
        if how is not signal.SIGKILL:
            assert (ended.returncode, ended.stdout.splitlines()[-1]) == (
                0,
                "ended; everything is stored",
            )
            assert collection.status().encoded == (9, 3)
            assert not socket_of(place).exists()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["--host", "0.0.0.0"], "give a token"),
        (["--host", "0.0.0.0", "--token", "short"], "at least 16"),
        (["--allow-paths", "nowhere"], "there is no such directory"),
        (["--host", "no.such.host.invalid", "--token", "x" * 16], "can't be listened at"),
        (["--port", "70000"], "--port must be in"),
    ],
)
def test_what_is_wrong_with_serving_is_one_line(place, ran, line, said):
    status, _, err = ran(place, *line, cold=True, main=serve_main, options=ServeOptions)
    assert (status, said in err.splitlines()[-1]) == (2, True), err


def test_a_port_in_use_and_what_is_no_collection_are_said(place, ran, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        serving = {"cold": True, "main": serve_main, "options": ServeOptions}
        status, _, err = ran(place, "--port", port, **serving)
        assert (status, "choose another --port" in err) == (2, True)
    status, _, err = ran(tmp_path / "nothing", "--port", 0, **serving)
    assert (status, "isn't there" in err) == (2, True)


def test_json_of_a_hit_is_exact(served, place, ran):
    with served():
        _, out, _ = ran(place, "disc", "--json", "-k", 1, main=never)
    (line,) = out.splitlines()
    with Collection.open(place) as collection:
        (hit,) = collection.search("disc", 1)
    assert json.loads(line)["score"] == hit.score
