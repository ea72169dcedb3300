"""A plan as a user makes it: real files, checkpoints and store, and what it leaves behind."""

import json
import re
import shutil

import pytest

from cascade import Collection, ImageRow, Stage
from cascade.collecting.record import Record
from cascade.migrate import MigrateOptions
from cascade.migrate import main as migrate
from cascade.terminal.command import run_command
from corpora.scenes import SEEDS, captions, render, scene
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


@pytest.fixture
def others(made, tmp_path):
    """Checkpoints of other first stages: one like the full tower, and a strange one."""
    for name, seed in (("same", 1), ("strange", 5)):
        tiny_clip(seed).save_pretrained(tmp_path / name)
        tiny_processor().save_pretrained(tmp_path / name)
    return tmp_path / "same", tmp_path / "strange"


def test_the_cheapest_first_stage_is_named_with_the_command_that_puts_it_there(
    ran, collection, others
):
    """Whichever that is: seconds are measured."""
    same, strange = others
    line = ["--k", 3, "--agreement", 0.8, "--drawn", 300]
    status, said, error = ran(collection, *line, "--first", same, strange, "--dry")
    assert status == 0, error
    assert Record.read(collection).m == (5,)
    assert "of all these first stages at once" in said
    assert "the error shared by 3 first stages" in said
    status, said, error = ran(collection, *line, "--first", same, strange)
    assert status == 0, error
    record = Record.read(collection)
    assert (record.plan.agreement, record.plan.confidence) == (0.8, 0.95)
    alone = ran(collection, *line, "--confidence", 1 - 0.05 / 3, "--dry")[1]
    assert f"m = {record.m[0]:,} returns" in alone
    (cheapest,) = re.findall(r"the cheapest is (the one that|\S+)", said)
    if cheapest == "the one that":
        assert "cascade.migrate" not in said
    else:
        assert cheapest.rstrip(":") in (str(same), str(strange))
        named = rf"python -m cascade.migrate {collection} --first {cheapest.rstrip(':')} --m \d+"
        assert re.search(named, said)


def test_the_command_that_is_named_puts_another_first_stage_there(collection, others, capsys):
    _, strange = others
    with Collection.open(collection) as before:
        before.search_many(["a picture 1"], 3)
        before.flush()
        encoded = before.status().encoded
    run_command(
        migrate, MigrateOptions, "cascade.migrate", [str(collection), "--first", str(strange)]
    )
    assert f"ranks all {IMAGES} photos and hands on 5" in " ".join(capsys.readouterr().out.split())
    with Collection.open(collection) as now:
        assert now.stages[0].name == Stage.load(strange).name
        assert now.status().encoded == encoded
        hits = now.search("a picture 1", 3)
        images = [row.uri for row in now.rows()]
        scores = Stage.load(strange).encode_texts(["a picture 1"]) @ (
            Stage.load(strange).encode_images(images).half().float().T
        )
        best = {images[at] for at in scores[0].topk(5).indices.tolist()}
        assert {hit.key for hit in hits} <= best


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["--first", "{own}"], "is the first stage already"),
        (["--first", "{same}", "{same}"], "is the same as"),
        (["--first", "{empty}"], "has no config.json"),
        (["--first", "{same}", "--m", "auto"], "belongs to one first stage"),
        (["--first", "{same}", "--cutoff", 0.1], "belongs to one first stage"),
        (
            ["--first", "{strange}", "--agreement", 0.99, "--largest", 3],
            "no first stage is certified",
        ),
        (["--cutoff", 0.05, "--drawn", 170], "170 queries give no cutoff"),
        (["--cutoff", 0.4], "--cutoff"),
        (["--unmatched", "{queries}"], "--unmatched"),
        (["--cutoff", 0.2, "--queries", "{queries}"], "--unmatched FILE"),
    ],
)
def test_what_can_not_be_compared_or_cut_off_is_said_in_a_line(
    ran, collection, made, others, tmp_path, line, said
):
    (tmp_path / "q.txt").write_text("\n".join(f"thing {at}" for at in range(200)))
    places = {"own": made.parent / "0", "same": others[0], "strange": others[1]}
    places |= {"queries": tmp_path / "q.txt", "empty": tmp_path}
    line = [str(each).format(**places) for each in line]
    status, _, error = ran(collection, "--k", 3, *line)
    assert status == 2
    assert said in error
    assert Record.read(collection).m == (5,)


def test_a_tower_that_has_learnt_nothing_is_refused_a_cutoff(ran, collection):
    line = ["--k", 3, "--agreement", 0.6, "--drawn", 400, "--cutoff", 0.1]
    status, _, error = ran(collection, *line)
    assert status == 2
    error = " ".join(error.split())
    assert "no score tells well enough whether anything matches: a cutoff would catch" in error
    assert "leave out --cutoff" in error
    assert Record.read(collection).m == (5,)
    assert Record.read(collection).cutoff is None


def test_what_nothing_matches_may_be_given(ran, collection, tmp_path):
    """Of two files of the same texts nobody can tell which is which."""
    for name in ("one", "other"):
        (tmp_path / name).write_text("\n".join(f"thing {at}" for at in range(200)))
    line = ["--queries", tmp_path / "one", "--unmatched", tmp_path / "other", "--cutoff", 0.2]
    status, _, error = ran(collection, "--k", 3, "--agreement", 0.6, *line)
    assert status == 2
    assert "no score tells well enough whether anything matches" in " ".join(error.split())


def test_the_cutoff_of_drawn_scenes_is_adopted_and_said_by_searches(ran, tmp_path):
    """With the embedded checkpoints, whose full tower knows such scenes."""
    images = 90
    rows = []
    for number in range(images):
        drawn = scene(SEEDS["validation"], number)
        path = tmp_path / f"{number}.png"
        render(drawn).save(path)
        rows.append(
            ImageRow(str(path), str(path), metadata=json.dumps({"captions": captions(drawn)}))
        )
    full = Stage.load("demo/clip-scenes")
    stages = [Stage.load("demo/clip-scenes-first", texts=full), full]
    place = tmp_path / "scenes.cascade"
    with Collection.create(place, stages, [20]) as collection:
        collection.add(rows)
    line = ["--k", 5, "--agreement", 0.8, "--cutoff", 0.1, "--confidence", 0.9, "--drawn", 600]
    status, said, error = ran(place, *line)
    assert status == 0, error
    cutoff = Record.read(place).cutoff
    assert cutoff.rejects == 0.1
    assert cutoff.caught_at_least >= 0.3
    assert "at most 10% of queries that something matches are said to match nothing" in said
    texts = [json.loads(row.metadata)["captions"][0] for row in rows]
    with Collection.open(place) as collection:
        hits = collection.search_many(texts, 5)
        assert sum(each.matches is False for each in hits) <= 0.2 * images
        collection.remove([row.key for row in rows[: images // 3]])
        gone = collection.search_many(texts[: images // 3], 5)
        assert sum(each.matches is False for each in gone) >= 0.25 * len(gone)
    entries = json.loads((place / "collection.json").read_text())
    del entries["cutoff"]
    (place / "collection.json").write_text(json.dumps(entries | {"format": 2}))
    with Collection.open(place) as collection:  # as an earlier version wrote it
        assert collection.cutoff is None
        assert collection.search(texts[-1], 5).matches is None
