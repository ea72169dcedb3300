"""The commands of a collection as a user runs them: real files, checkpoints and store."""

import json
import os
import re
import shutil
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from cascade import Collection
from cascade.collecting.record import Record
from cascade.index import IndexOptions
from cascade.index import main as index_main
from cascade.refine import RefineOptions
from cascade.refine import main as refine_main
from cascade.search import SearchOptions
from cascade.search import main as search_main
from cascade.status import StatusOptions
from cascade.status import main as status_main
from cascade.terminal import command
from cascade.terminal.command import run_command
from pruning_mechanism import Reduction, load, reduce
from tests.cascade.calibrated.test_cutoff import CUTOFF
from tests.cascade.photos.conftest import encoded, packed, painted
from tests.conftest import SENTENCE, tiny_clip, tiny_processor
from tests.fresh import Process
from tests.lanes import sweep, thorough_only

pytest.importorskip("lancedb")
ROOT = Path(__file__).resolve().parents[2]
COMMANDS = {
    "index": (index_main, IndexOptions),
    "refine": (refine_main, RefineOptions),
    "search": (search_main, SearchOptions),
    "status": (status_main, StatusOptions),
}


@pytest.fixture(scope="module")
def first_directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("first")
    tiny_clip(1).save_pretrained(directory)
    tiny_processor().save_pretrained(directory)
    return directory


@pytest.fixture
def photos(tmp_path):
    for number in range(8):
        painted(tmp_path / "photos" / f"{number}.png")
    return tmp_path / "photos"


@pytest.fixture
def ran(capsys):
    """ran(command, *line) -> (exit status, standard output, standard error)."""

    def run(command, *line):
        main, options = COMMANDS[command]
        status = 0
        try:
            run_command(main, options, f"cascade.{command}", list(map(str, line)))
        except SystemExit as ended:
            status = ended.code
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


@pytest.fixture
def indexed(ran, photos, tmp_path, first_directory, clip_directory):
    """A collection of the photos, which 3 candidates each are handed on in."""
    into = tmp_path / "c.cascade"
    line = ["--first", first_directory, "--last", clip_directory, "--m", 3]
    status, _, said = ran("index", photos, "--into", into, *line)
    assert status == 0, said
    return into


def lines_of(text):
    return [json.loads(line) for line in text.splitlines()]


def test_that_nothing_matches_is_said_above_the_hits(ran, indexed, tmp_path, monkeypatch):
    with Collection.open(indexed) as collection:
        names = tuple(stage.name for stage in collection.stages)
        nothing = replace(CUTOFF, stages=names, m=3, threshold=2.0, images=len(collection))
        collection.adopt([3], None, None, nothing)
    status, out, _ = ran("search", indexed, "a disc", "-k", 2, "--explain")
    assert status == 0
    assert out.startswith("nothing in here matches well:\n")
    assert ".png" in out
    assert "the best score is below what evaluation.plan --cutoff learnt" in " ".join(out.split())
    status, out, _ = ran("search", indexed, "a disc", "-k", 2, "--json")
    assert [line["matches"] for line in lines_of(out)] == [False, False]
    status, out, _ = ran("search", indexed, "a disc", "-k", 2, "--json", "--m", 2)
    assert [line["matches"] for line in lines_of(out)] == [None, None]
    monkeypatch.setattr("webbrowser.open", lambda address: None)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    status, out, _ = ran("search", indexed, "a disc", "-k", 2, "--open")
    (sheet,) = tmp_path.glob("*.html")
    assert "nothing in here matches well" in sheet.read_text()


# -- index


def test_photos_are_indexed_once_and_the_next_run_goes_on(ran, indexed, photos):
    painted(photos / "new.png")
    (photos / "3.png").rename(photos / "renamed.png")
    (photos / "4.png").unlink()
    (photos / "notes.txt").write_text("no photo")
    (photos / "broken.jpg").write_text("no picture")
    status, out, _ = ran("index", photos, "--into", indexed)
    assert status == 0
    assert re.match(r"9 photos in [\d.]+ s: 1 new, 1 moved, 6 unchanged", out)
    assert "1 are no longer where they were: --prune removes them" in out
    assert "can't be decoded (it is no picture of a kind that is read here)" in out
    assert "passed over: 1 × .txt file" in out
    assert f"wrote {indexed}: 9 photos can be searched" in out
    status, out, _ = ran("index", photos, "--into", indexed, "--prune")
    assert "1 removed" in out
    assert f"wrote {indexed}: 8 photos can be searched" in out


def test_patterns_archives_and_lists_are_indexed(ran, indexed, tmp_path, monkeypatch):
    archive = packed(
        tmp_path / "s.tar", {"a.png": encoded("red"), "b.jpg": encoded("blue", "JPEG")}
    )
    others = [painted(tmp_path / f"others/{name}.png") for name in "xyz"]
    status, out, _ = ran("index", archive, "--into", indexed, "--include", "*.jpg")
    assert (status, out.count("1 new")) == (0, 1)
    listed = tmp_path / "list"
    listed.write_bytes(b"\0".join(map(os.fsencode, others[:2])))
    with listed.open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        status, out, _ = ran("index", "-", "--into", indexed)
    assert (status, out.count("2 new")) == (0, 1)
    status, out, _ = ran("index", f"{tmp_path}/others/*.png", "--into", indexed, "--exclude", "x*")
    assert re.match("2 photos in .* s: 1 new, 1 unchanged", out)
    with Collection.open(indexed) as collection:
        assert len(collection) == 12
        assert f"{archive}#b.jpg" in collection


def test_a_directory_is_watched_until_the_user_ends_it(ran, indexed, photos, monkeypatch):
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        if len(waits) == 2:
            painted(photos / "later.png")
        if len(waits) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr("cascade.index.time.sleep", sleep)
    status, out, err = ran("index", photos, "--into", indexed, "--watch", 5)
    assert (status, waits) == (130, [5] * 4)
    assert re.findall(r"(\d+) photos in", out) == ["8", "9"]  # the others found nothing to do
    assert err.splitlines()[-1].startswith("interrupted: ")
    with Collection.open(indexed) as collection:
        assert str(photos / "later.png") in collection


def test_indexing_goes_on_to_refine_up_to_a_share(ran, indexed, photos, monkeypatch):
    status, out, _ = ran("index", photos, "--into", indexed, "--refine", 0.5)
    assert status == 0
    assert "8 unchanged" in out
    assert "encoded 4 photos" in out
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        raise KeyboardInterrupt

    monkeypatch.setattr("cascade.index.time.sleep", sleep)
    status, out, _ = ran("index", photos, "--into", indexed, "--refine", 1, "--watch", 60)
    assert status == 130
    assert "encoded 4 photos" in out
    assert 0 < waits[0] < 60  # what refining left of the time until the next look
    with Collection.open(indexed) as collection:
        assert collection.status().encoded == (8, 8)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ([], "name the photos to index"),
        (["-", "--watch", "3"], "a list is read only once"),
        (["nowhere"], "nowhere: there is no such file or directory"),
        (["-", "--prune"], "a list doesn't say what is gone"),
        ([".", "--into", "new.cascade"], "new.cascade isn't there yet: name the checkpoints"),
        ([".", "--first", "x"], "--first needs --last"),
        ([".", "--last", "x", "--resume"], "--resume needs --first"),
        ([".", "--ray-cpus", "2"], "--ray-cpus has no effect with no --ray"),
        ([".", "--into", "new.cascade", "--last", "nowhere/at all"], "nowhere/at all"),
    ],
)
def test_what_a_user_can_mend_is_one_line_and_leaves_nothing(
    ran, tmp_path, monkeypatch, line, said
):
    monkeypatch.chdir(tmp_path)
    status, _, err = ran("index", *line)
    assert status == 2
    assert said in err.splitlines()[-1]
    assert os.listdir(tmp_path) == []


def test_other_stages_are_refused_with_both_names(ran, indexed, photos, clip_directory):
    status, _, err = ran("index", photos, "--into", indexed, "--last", clip_directory)
    assert status == 2
    assert "was made with 2 stages, not 1" in err
    line = ["--first", clip_directory, "--last", clip_directory]
    status, _, err = ran("index", photos, "--into", indexed, *line)
    assert status == 2
    assert str(clip_directory) in err


def test_parts_that_were_indexed_apart_are_joined(ran, indexed, photos, tmp_path):
    ran("search", indexed, "a red disc")
    painted(tmp_path / "more" / "9.png")
    stages = [stage.checkpoint for stage in Record.read(indexed).stages]
    part, whole = tmp_path / "part.cascade", tmp_path / "whole.cascade"
    line = ["--first", stages[0], "--last", stages[1], "--m", 3]
    ran("index", tmp_path / "more", "--into", part, *line)
    status, out, err = ran("index", indexed, part, "--into", whole)
    assert status == 0, err
    assert f"joined {indexed}: 8 new, 0 changed, 0 unchanged" in out
    assert f"wrote {whole}: 9 photos can be searched" in out
    with Collection.open(whole) as joined, Collection.open(indexed) as before:
        assert joined.status().encoded == (9, before.status().encoded[1])
        assert joined.m == (3,)
    assert Record.read(whole).stages == Record.read(indexed).stages
    _, out, _ = ran("index", part, "--into", whole)
    assert "0 new, 0 changed, 1 unchanged" in out


def test_the_last_stage_goes_on_from_the_first_in_a_later_process(
    ran, photos, tmp_path, clip_directory
):
    early, into = tmp_path / "early", tmp_path / "c.cascade"
    reduce(load(clip_directory), Reduction(layers=1)).save_pretrained(early)
    tiny_processor().save_pretrained(early)
    status, _, said = ran(
        "index", photos, "--into", into, "--first", early, "--last", clip_directory, "--resume"
    )
    assert status == 0, said
    _, out, _ = ran("status", into)
    assert re.search(r"states to go on from: 8 photos, \d+ bytes each", out)
    shutil.rmtree(photos)
    _, out, _ = ran("search", into, "a red disc", "--json", "-k", 8)
    assert [line["stage"] for line in lines_of(out)] == [1] * 8
    status, _, err = ran("index", tmp_path, "--into", into, "--resume")
    assert status == 0, err


def test_resuming_is_no_wish_that_is_dropped_silently(ran, indexed, photos):
    status, _, err = ran("index", photos, "--into", indexed, "--resume")
    assert status == 2
    assert f"--resume has no effect with {indexed}" in err


# -- search


def test_hits_are_those_of_the_collection(ran, indexed, photos):
    with Collection.open(indexed) as collection:
        expected = collection.search("a red disc", 4)
    status, out, _ = ran("search", indexed, "a red disc", "-k", 4, "--json")
    assert status == 0
    found = lines_of(out)
    assert [entry["key"] for entry in found] == [hit.key for hit in expected]
    assert [entry["score"] for entry in found] == [hit.score for hit in expected]
    assert [entry["stage"] for entry in found] == [1, 1, 1, 0]
    assert [entry["rank"] for entry in found] == [1, 2, 3, 4]
    assert found[0]["uri"] == Path(found[0]["key"]).as_uri()
    status, out, _ = ran("search", indexed, "a red disc", "-k", 4)
    assert next(line for line in out.splitlines() if str(photos) in line).split()[1] == "1"


def test_an_example_finds_itself_and_what_is_not_wanted_counts(ran, indexed, photos):
    _, out, _ = ran("search", indexed, "--like", photos / "5.png", "-k", 1, "--m", 8, "--json")
    (found,) = lines_of(out)
    assert found["key"] == str(photos / "5.png")
    assert found["score"] == pytest.approx(1, abs=1e-3)
    orders = []
    for line in (
        ["disc"],
        ["disc", "--without", "red, star"],
        ["disc", "--like", photos / "1.png"],
    ):
        _, out, _ = ran("search", indexed, *line, "-k", 8, "--m", 8, "--json")
        orders.append([entry["score"] for entry in lines_of(out)])
    assert len({tuple(scores) for scores in orders}) == 3
    status, _, err = ran("search", indexed, "disc", "--without", "disc")
    assert status == 2
    assert "nothing is left" in err


def test_a_file_of_queries_gives_the_hits_of_each(ran, indexed, tmp_path):
    (tmp_path / "queries").write_text("a red disc\n\na blue star\n")
    _, out, _ = ran("search", indexed, "--queries", tmp_path / "queries", "-k", 2, "--json")
    found = lines_of(out)
    assert [entry["query"] for entry in found] == ["a red disc"] * 2 + ["a blue star"] * 2
    for query in ("a red disc", "a blue star"):
        _, alone, _ = ran("search", indexed, query, "-k", 2, "--json")
        assert lines_of(alone) == [entry for entry in found if entry["query"] == query]


def test_explain_says_what_was_encoded_now(ran, indexed):
    def counts(said):
        rows = [re.findall(r"[\w.]+", line) for line in said.splitlines()]
        return [row[:3] for row in rows if len(row) > 5 and row[0] in ("1", "2")]

    _, out, err = ran("search", indexed, "a red disc", "--json", "--explain")
    assert len(lines_of(out)) == 8
    assert counts(err) == [["1", "8", "0"], ["2", "3", "3"]]
    _, _, err = ran("search", indexed, "a red disc", "--json", "--explain")
    assert counts(err) == [["1", "8", "0"], ["2", "3", "0"]]  # stored by the run before
    assert "embedding the query" in err


def test_a_refined_search_ranks_all_that_is_encoded(ran, indexed):
    status, out, _ = ran("refine", indexed)
    assert status == 0
    assert "encoded 8 photos" in out
    assert "8 of 8 (100.0%)" in out
    found = []
    for refined in ([], ["--refined"]):
        _, out, _ = ran("search", indexed, "a red disc", "-k", 8, "--json", *refined)
        found.append([entry["stage"] for entry in lines_of(out)])
    assert found == [[1] * 3 + [0] * 5, [1] * 8]


def test_a_contact_sheet_is_written_and_opened(ran, indexed, photos, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    (photos / "0.png").unlink()
    _, out, _ = ran("search", indexed, "a red disc", "--open")
    (uri,) = opened
    page = Path(uri.removeprefix("file://"))
    text = page.read_text()
    assert f"wrote {page}" in out
    assert text.count("data:image/jpeg;base64,") == 7
    assert (photos / "1.png").as_uri() in text
    assert not re.search(r"(src|href)=\"https?:", text)
    page.unlink()


def test_paths_can_be_clicked_in_a_terminal_only(ran, indexed, photos, monkeypatch):
    _, out, _ = ran("search", indexed, "a red disc", "-k", 1)
    assert "\x1b]8;" not in out
    monkeypatch.setattr(
        "cascade.search.console", lambda **_: Console(force_terminal=True, width=200)
    )
    _, out, _ = ran("search", indexed, "a red disc", "-k", 1)
    assert re.search(rf"\x1b\]8;[^;]*;{re.escape(photos.as_uri())}/\d\.png\x1b\\", out)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["{c}"], "say what to look for"),
        (["{c}", "  "], "say what to look for"),
        (["nowhere", "disc"], "nowhere isn't there"),
        (["{p}", "disc"], "is not a collection"),
        (["{c}", "--like", "nowhere.jpg"], "--like nowhere.jpg: there is no such file"),
        (["{c}", "disc", "--queries", "{c}"], "exclude each other"),
        (["{c}", "--queries", "nowhere.txt"], "nowhere.txt: No such file"),
    ],
)
def test_what_is_wrong_with_a_search_is_one_line(ran, indexed, photos, line, said):
    status, _, err = ran("search", *(word.format(c=indexed, p=photos) for word in line))
    assert status == 2
    assert said in err.splitlines()[-1]


# -- refine


@pytest.mark.parametrize(
    ("budget", "encoded"),
    [(("--images", 4), 7), (("--share", 0.5), 4), (("--images", 4, "--share", 0.25), 3)],
    ids=["images", "share", "both"],
)
def test_refining_stops_at_its_budget(ran, indexed, budget, encoded):
    ran("search", indexed, "a red disc")  # three are encoded
    ran("refine", indexed, *budget)
    _, out, _ = ran("status", indexed, "--json")
    (entry,) = lines_of(out)
    assert entry["encoded"] == [8, encoded]


def test_one_stage_has_nothing_to_refine(ran, photos, tmp_path, clip_directory):
    ran("index", photos, "--into", tmp_path / "one", "--last", clip_directory)
    status, _, said = ran("refine", tmp_path / "one")
    assert status == 2
    assert said.splitlines()[-1].endswith("has one stage: there is nothing to refine")


# -- status


def test_status_says_how_far_each_stage_has_come_and_what_was_skipped(ran, indexed, photos):
    (photos / "broken.jpg").write_text("no picture")
    (photos / "empty.jpg").write_bytes(b"")
    ran("index", photos, "--into", indexed)
    ran("search", indexed, "a red disc")
    _, out, _ = ran("status", indexed)
    assert "8 photos, 2 skipped" in out
    assert "37.5%" in out  # 3 of 8
    _, out, _ = ran("status", indexed, "--skipped")
    assert str(photos / "empty.jpg") in out
    _, out, _ = ran("status", indexed, "--json", "--skipped")
    (entry,) = lines_of(out)
    assert (entry["images"], entry["encoded"]) == (8, [8, 3])
    assert entry["reasons"][str(photos / "empty.jpg")] == "empty file"


# -- ended from outside

INDEX = """
import sys
from cascade.index import IndexOptions, main
from cascade.terminal import command
from cascade.terminal.command import run_command
import cascade.collecting.adding as adding
adding.SECONDS = 0.0  # each batch is a commit
run_command(main, IndexOptions, "cascade.index", sys.argv[1:])
"""


def begun(photos, into, first, last) -> Process:
    line = [photos, "--into", into, "--first", first, "--last", last, "--batch-size", "2"]
    return Process("-c", INDEX, *line, cwd=ROOT)


def held(into) -> dict[str, str | None]:
    """The rows of a collection, each once, with their digests."""
    try:
        with Collection.open(into) as collection:
            rows = list(collection.rows())
    except ValueError:  # it isn't made yet
        return {}
    assert len({row.key for row in rows}) == len(rows)
    return {row.key: row.digest for row in rows}


def check_killed(moments, number, places, how):
    """End runs once so many more photos are there: nothing that was there is lost."""
    before: dict[str, str | None] = {}
    for moment in moments:
        running = begun(*places)
        while running.process.exitcode is None:
            if len(held(places[1])) >= min(len(before) + moment, number):
                running.send_signal(how)
                break
            time.sleep(0.02)
        ended = running.wait()
        after = held(places[1])
        assert before.items() <= after.items(), ended.stderr
        if how is signal.SIGINT and ended.returncode:
            assert ended.returncode == 130
            assert ended.stderr.splitlines()[-1].startswith("interrupted: ")
        before = after
    return before


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
@pytest.mark.parametrize("how", sweep([signal.SIGKILL, signal.SIGINT], [signal.SIGKILL]))
def test_killed_at_any_moment_it_goes_on_where_it_was(
    ran, photos, tmp_path, first_directory, clip_directory, how
):
    for number in range(40):
        painted(photos / f"more/{number}.png", size=(300, 200))
    places = (photos, tmp_path / "k.cascade", first_directory, clip_directory)
    there = check_killed([3], 48, places, how)
    assert there
    status, out, _ = ran("index", photos, "--into", places[1])
    assert status == 0
    if len(there) < 48:
        assert f"{48 - len(there)} new, {len(there)} unchanged" in out
    with Collection.open(places[1]) as collection:
        killed = collection.search_many(SENTENCE.split(), 9)
    line = ["--first", first_directory, "--last", clip_directory]
    ran("index", photos, "--into", tmp_path / "whole.cascade", *line)
    with Collection.open(tmp_path / "whole.cascade") as collection:
        whole = collection.search_many(SENTENCE.split(), 9)
    for one, other in zip(killed, whole, strict=True):
        assert {hit.key for hit in one} == {hit.key for hit in other}
        for hit, expected in zip(one, other, strict=True):
            assert hit.score == pytest.approx(expected.score, abs=2e-3)


@thorough_only
@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_killed_many_times_nothing_is_lost_and_nothing_is_there_twice(
    ran, photos, tmp_path, first_directory, clip_directory
):
    for number in range(400):
        painted(photos / f"more/{number}.png", size=(300, 200))
    into = tmp_path / "k.cascade"
    places = (photos, into, first_directory, clip_directory)
    check_killed([1 + number % 7 for number in range(20)], 408, places, signal.SIGKILL)
    assert ran("index", photos, "--into", into)[0] == 0
    assert len(held(into)) == 408


@pytest.mark.parametrize(("given", "kept"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_that_wait_leave_their_cores_to_others_unless_told_otherwise(
    monkeypatch, given, kept
):
    monkeypatch.setenv("OMP_WAIT_POLICY", given or "")
    if given is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    command._errors(True)
    assert os.environ["OMP_WAIT_POLICY"] == kept
