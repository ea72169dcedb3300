"""Indexing that is searched meanwhile: a real process that indexes, and what is found beside it."""

import pytest

from cascade import Collection, Stage
from cascade.photos.finding import Photos
from cascade.terminal.command import run_command
from evaluation.growing.alone import rates_of, sampled_rows
from evaluation.growing.looking import Asking, IndexingError, looked
from evaluation.indexing import COLLECTION, IndexingOptions, main
from evaluation.reports.indexing.report import FILE, Indexing
from tests.cascade.photos.conftest import painted
from tests.conftest import tiny_clip, tiny_processor

pytest.importorskip("lancedb")


@pytest.fixture
def photos(tmp_path):
    for number in range(12):
        painted(tmp_path / "photos" / f"{number}.png")
    (tmp_path / "photos" / "empty.jpg").touch()
    return tmp_path / "photos"


@pytest.fixture(scope="module")
def first_directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("first")
    tiny_clip(1).save_pretrained(directory)
    tiny_processor().save_pretrained(directory)
    return directory


@pytest.fixture
def ran(tmp_path, photos, first_directory, clip_directory, capsys):
    """ran(*line) -> (exit status, standard output, standard error)."""
    queries = tmp_path / "queries.txt"
    queries.write_text("a dog\na red car\n")
    places = ["--queries", queries, "--first", first_directory, "--last", clip_directory]

    def run(*line, photos=photos):
        status = 0
        try:
            every = [photos, *places, "--output", tmp_path / "out", "--alone", "8", *line]
            run_command(main, IndexingOptions, "evaluation.indexing", list(map(str, every)))
        except SystemExit as ended:
            status = ended.code
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def test_the_finished_state_is_that_of_the_collection(ran, tmp_path, photos):
    status, out, err = ran("--k", 3, "--m", 4, "--refine", 1, "--every", 0.1)
    assert status == 0, err
    report = Indexing.load(tmp_path / "out" / FILE)
    last = report.looks[-1]
    assert (report.images, report.skipped, last.images, last.encoded) == (12, 1, 12, 12)
    assert last.agreement == 100
    assert all(0 < look.first <= look.seconds for look in report.looks)
    assert all(0 <= look.agreement <= 100 for look in report.looks)
    assert report.rates.photos == 8
    assert min(report.rates.decoding, report.rates.encoding) > 0
    assert str(tmp_path) not in report.command
    assert "all 12 could be searched" in " ".join(out.split())
    assert "all 12 could be searched" in (tmp_path / "out" / "report.md").read_text()
    with Collection.open(tmp_path / "out" / COLLECTION) as collection:
        assert sorted(collection.skipped.values()) == ["empty file"]
        assert len(collection) == 12


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["--first", "nowhere/at-all"], "nowhere/at-all"),
        (["--queries", "none.txt"], "none.txt"),
    ],
)
def test_what_a_user_can_mend_is_said_before_anything_is_timed(ran, tmp_path, line, said):
    status, _, err = ran(*line)
    assert (status, err.count("\n")) == (2, 1)
    assert said in err
    assert not (tmp_path / "out").exists()


def test_no_photos_are_one_line(ran, tmp_path):
    (tmp_path / "none").mkdir()
    status, _, err = ran(photos=tmp_path / "none")
    assert status == 2
    assert "no photos were found" in err
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def stage(clip_directory):
    return Stage.load(clip_directory)


def test_why_indexing_failed_is_said(stage):
    with Collection.in_memory([stage]) as collection:
        asking = Asking(collection, ["a dog"], 3, refined=False)
        with pytest.raises(IndexingError, match="name the photos to index"):
            looked(["--into", "new.cascade"], asking, 1.0)


def test_photos_are_drawn_from_all_places_each_once(photos):
    every = sampled_rows(Photos.at([str(photos)]), 100, 0)
    some = sampled_rows(Photos.at([str(photos)]), 5, 0)
    assert len({row.key for row in every}) == len(every) == 12
    assert some == every[:5] != sampled_rows(Photos.at([str(photos)]), 5, 1)


def test_rates_count_what_can_be_read(stage, photos):
    (photos / "broken.jpg").write_bytes(b"no picture")
    rows = sampled_rows(Photos.at([str(photos)]), 100, 0)
    rates = rates_of(stage, rows)
    assert rates.photos == 13
    assert rates.shared < rates.slower
    with pytest.raises(ValueError, match="none of the photos can be read"):
        rates_of(stage, [row for row in rows if "broken" in row.key])
