"""A plan as a user makes it: real files, checkpoints and store, and what it leaves behind."""

import json
import shutil

import pytest

from cascade import Collection, ImageRow, Stage
from cascade.collecting.record import Record
from cascade.terminal.command import run_command
from evaluation.plan import PlanOptions, main
from evaluation.retrieval import overlap
from tests.cascade.photos.conftest import painted
from tests.conftest import tiny_clip, tiny_processor

pytest.importorskip("lancedb")
IMAGES = 24


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A collection of pictures whose stages are different tiny towers."""
    directory = tmp_path_factory.mktemp("plan")
    for number in range(2):
        tiny_clip(number).save_pretrained(directory / str(number))
        tiny_processor().save_pretrained(directory / str(number))
    paths = [painted(directory / "photos" / f"{number}.png") for number in range(IMAGES)]
    captions = [json.dumps({"captions": [f"a picture {at}", "one more"]}) for at in range(IMAGES)]
    rows = [
        ImageRow(str(path), str(path), metadata=text)
        for path, text in zip(paths, captions, strict=True)
    ]
    stages = [Stage.load(directory / str(number)) for number in range(2)]
    with Collection.create(directory / "c.cascade", stages, [5]) as collection:
        collection.add(rows)
    return directory / "c.cascade"


@pytest.fixture
def collection(made, tmp_path):
    return shutil.copytree(made, tmp_path / "c.cascade")


@pytest.fixture
def ran(capsys):
    """ran(*line) -> (exit status, standard output, standard error)."""

    def run(*line):
        status = 0
        try:
            run_command(main, PlanOptions, "evaluation.plan", list(map(str, line)))
        except SystemExit as ended:
            status = ended.code
        said = capsys.readouterr()
        return status, " ".join(said.out.split()), said.err

    return run


def test_what_is_certified_is_written_and_holds(ran, collection):
    status, said, error = ran(collection, "--k", 3, "--agreement", 0.8, "--drawn", 300)
    assert status == 0, error
    record = Record.read(collection)
    (m,) = record.m
    assert f"certified with 95% confidence: m = {m} returns at least 80%" in said
    assert f"({IMAGES} images)" in said
    assert "captions of the collection" in said
    assert (record.plan.agreement, record.plan.k, record.plan.queries) == (0.8, 3, 300)
    assert (record.plan.encoded, record.plan.images) == (IMAGES, IMAGES)
    captions = [f"a picture {at}" for at in range(IMAGES)] + ["one more"] * IMAGES
    with Collection.open(collection) as opened, Collection.open(collection, m=[IMAGES]) as full:
        assert opened.m == (m,)
        assert opened.plan == record.plan
        assert full.plan is None  # nothing is certified of another m
        assert opened.status().encoded == (IMAGES, IMAGES)
        places = {row.key: at for at, row in enumerate(opened.rows())}
        tops = [
            [[places[hit.key] for hit in hits] for hits in each.search_many(captions, 3)]
            for each in (full, opened)
        ]
    assert overlap(*tops).mean() >= 0.8  # over all captions that queries were drawn from


def test_the_smallest_certified_m_is_that_of_an_exhaustive_search(ran, collection):
    ran(collection, "--k", 3, "--agreement", 0.7, "--drawn", 200, "--seed", 5)
    (m,) = Record.read(collection).m
    for other, expected in ((m, 0), (m - 1, 2)):
        if other >= 3:
            line = ["--largest", other, "--agreement", 0.7, "--drawn", 200, "--seed", 5, "--dry"]
            assert ran(collection, "--k", 3, *line)[0] == expected


def test_queries_of_a_file(ran, collection, tmp_path):
    (tmp_path / "q.txt").write_text("\n\n".join(f"a thing {at}" for at in range(120)))
    line = ["--k", 2, "--agreement", 0.6, "--queries", tmp_path / "q.txt", "--dry"]
    status, said, error = ran(collection, *line)
    assert status == 0, error
    assert "these 120 were (those in" in said
    assert Record.read(collection).m == (5,)  # --dry leaves it


def test_a_part_of_the_images_certifies_less_and_says_so(ran, collection):
    status, said, error = ran(collection, "--k", 3, "--agreement", 0.5, "--images", 8)
    assert status == 0, error
    assert "full tower's best image among 8 sampled ones" in said
    assert "not certified for the whole collection" in said
    with Collection.open(collection) as opened:
        assert opened.status().encoded == (IMAGES, 8)
        assert opened.plan.encoded == 8


def test_images_are_queries_where_there_are_no_captions(ran, collection):
    with Collection.open(collection) as opened:
        rows = [ImageRow(row.key, row.uri) for row in opened.rows()]
        opened.remove([row.key for row in rows])
        opened.add(rows)
    status, said, error = ran(collection, "--k", 3, "--agreement", 0.6)
    assert status == 0, error
    assert "images of the collection in place of texts" in said
    assert "name a file of --queries" in said
    said = ran(collection, "--k", 3, "--agreement", 0.5, "--images", 12, "--dry")[1]
    assert "(sampled images in place of texts)" in said


def test_the_choice_of_m_for_each_query_is_certified_and_written(ran, collection):
    line = ["--k", 3, "--agreement", 0.8, "--m", "auto"]
    status, said, error = ran(collection, *line, "--drawn", 600, "--dry")
    assert status == 0, error
    assert Record.read(collection).calibration is None
    status, said, error = ran(collection, *line, "--drawn", 600)
    assert status == 0, error
    assert 'm = "auto" returns at least 80%' in said
    assert "it was learnt from others" in said
    learnt = Record.read(collection).calibration
    assert (learnt.k, learnt.agreement, learnt.queries, learnt.certified_on) == (3, 0.8, 300, 300)
    captions = [f"a picture {at}" for at in range(IMAGES)] + ["one more"] * IMAGES
    with Collection.open(collection, m="auto") as auto, Collection.open(collection) as fixed:
        full = fixed.search_embeddings(fixed.encode_texts(captions), 3, m=[IMAGES])
        found = auto.search_many(captions, 3)
        assert {hit.probability for hits in full for hit in hits} == {1.0}
        places = {row.key: at for at, row in enumerate(auto.rows())}
        tops = [[[places[hit.key] for hit in hits] for hits in each] for each in (full, found)]
    assert overlap(*tops).mean() >= 0.8  # over all captions that queries were drawn from
    ran(collection, "--k", 3, "--agreement", 0.8, "--drawn", 300)
    assert Record.read(collection).calibration == learnt  # a fixed m leaves it


def test_everyday_texts_are_queries_where_there_are_no_captions(ran, collection):
    with Collection.open(collection) as opened:
        opened.update_many({row.key: ImageRow(row.key, row.uri) for row in opened.rows()})
    line = ["--k", 3, "--agreement", 0.6, "--m", "auto", "--images", 20]
    status, said, error = ran(collection, *line)
    assert status == 0, error
    assert "(everyday texts)" in said
    learnt = Record.read(collection).calibration
    assert (learnt.of, learnt.encoded, learnt.images) == ("everyday texts", 20, IMAGES)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["--drawn", 120, "--m", "auto"], "60 queries certify nothing, the others being learnt"),
        (["--drawn", 20], "20 queries certify nothing: an agreement of 95% with 95% confidence"),
        (["--k", IMAGES, "--largest", 50], f"holds {IMAGES} images"),
        (["--queries", "nowhere.txt"], "nowhere.txt: No such file"),
        (["--k", 3, "--largest", 3], "no m up to 3 is certified for an agreement of 95%"),
    ],
)
def test_what_can_not_be_planned_is_said_in_a_line(ran, collection, line, said):
    status, _, error = ran(collection, *line)
    assert status == 2
    assert said in error
    assert Record.read(collection).m == (5,)


def test_images_that_are_gone_are_counted_and_too_few_are_no_plan(ran, collection, made):
    photos = sorted((made.parent / "photos").iterdir())
    away = made.parent / "away"
    away.mkdir()
    for photo in photos[:-2]:
        photo.rename(away / photo.name)
    try:
        status, _, error = ran(collection, "--k", 3, "--agreement", 0.5)
        assert status == 2
        assert f"can read only 2 of {IMAGES} images" in error
        for photo in photos[1:-2]:
            (away / photo.name).rename(photo)
        status, said, error = ran(collection, "--k", 3, "--agreement", 0.5)
        assert status == 0, error
        assert "1 sampled images can't be read any more" in said
        assert f"({IMAGES - 1} images)" in said
    finally:
        for photo in away.iterdir():
            photo.rename(made.parent / "photos" / photo.name)


def test_a_file_without_queries_and_a_place_without_a_collection(ran, collection, tmp_path):
    (tmp_path / "empty.txt").write_text("\n \n")
    assert "holds no queries" in ran(collection, "--queries", tmp_path / "empty.txt")[2]
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\xfa")
    assert "isn't text" in ran(collection, "--queries", tmp_path / "bytes.txt")[2]
    status, _, error = ran(tmp_path / "nothing.cascade")
    assert status == 2
    assert "isn't there" in error
