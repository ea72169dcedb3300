"""A cascade gives the results of its definition, and later stages work as little as promised."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cascade import Cascade, Hit, Stage, UnreadableImage
from tests.lanes import examples

unhurried = settings(deadline=None, max_examples=examples(20, 60))  # a busy machine is no failure


class Table:
    """A stage whose embeddings are looked up: image i is row i, text "j" is query j."""

    def __init__(self, images, texts, text_name="table", unreadable=()):
        self.images, self.texts = images, texts
        self.name = self.text_name = text_name
        self.unreadable = set(unreadable)
        self.asked, self.asked_texts = [], []

    def encode_images(self, images):
        if self.unreadable & set(images):
            raise UnreadableImage("no")
        self.asked += images
        return self.images[list(images)]

    def encode_texts(self, texts):
        self.asked_texts += texts
        return self.texts[[int(text) for text in texts]]


@st.composite
def collections(draw, stages=3):
    """Stages of different dimensions with small whole numbers, so that scores tie a lot."""
    images, queries = draw(st.integers(1, 12)), draw(st.integers(1, 5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))

    def embeddings(count, dimension):
        return torch.randint(-2, 3, (count, dimension), generator=generator).float()

    tables = [
        Table(embeddings(images, 2 + i), embeddings(queries, 2 + i), text_name=f"texts {i}")
        for i in range(draw(st.integers(1, stages)))
    ]
    steps = draw(st.lists(st.integers(1, 4), min_size=len(tables) - 1, max_size=len(tables) - 1))
    m = [sum(steps[i:]) for i in range(len(steps))]
    return SimpleNamespace(tables=tables, m=m, images=images, queries=queries)


def by_definition(tables, m, query, k):
    """Positions and stages of the hits, ranked with Python's stable sort."""
    order, rankings = list(range(len(tables[0].images))), []
    for stage, table in enumerate(tables):
        order = order[: m[stage - 1]] if stage else order
        scores = (table.images @ table.texts[query]).tolist()
        order = sorted(order, key=lambda at: -scores[at])
        rankings.append(order)
    hits = []
    for stage in reversed(range(len(tables))):
        hits += [(at, stage) for at in rankings[stage] if at not in {at for at, _ in hits}]
    return hits[:k]


@unhurried
@given(collections(), st.integers(1, 15))
def test_results_are_those_of_the_definition_for_any_k(world, k):
    cascade = Cascade(world.tables, world.m, batch_size=3)
    cascade.index(range(world.images))
    for query in range(world.queries):
        hits = cascade.search(str(query), k)
        expected = by_definition(world.tables, world.m, query, k)
        assert [(hit.key, hit.stage) for hit in hits] == expected
        for hit in hits:
            table = world.tables[hit.stage]
            assert hit.score == (table.images[hit.key] @ table.texts[query]).item()


@unhurried
@given(collections(), st.integers(1, 15), st.integers(1, 4), st.randoms())
def test_many_queries_at_once_are_exactly_one_at_a_time(world, k, chunk, random):
    queries = [str(random.randrange(world.queries)) for _ in range(7)]
    for table in world.tables:  # not whole numbers: sums now depend on the order of adding
        table.images, table.texts = table.images / 3 + 0.1, table.texts / 7
    one, many = (Cascade(world.tables, world.m) for _ in range(2))
    one.index(range(world.images))
    many.index(range(world.images))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cascade.cascade._QUERIES_AT_ONCE", chunk)
        together = many.search_many(queries, k)
    assert together == [one.search(query, k) for query in queries]
    assert many.encoded == one.encoded


@unhurried
@given(collections(), st.integers(1, 15))
def test_a_later_stage_encodes_candidates_only_and_each_once(world, k):
    cascade = Cascade(world.tables, world.m)
    cascade.index(range(world.images))
    queries = [str(query) for query in range(world.queries)] * 2
    cascade.search_many(queries, k)
    wanted = [set() for _ in world.tables]
    for query in range(world.queries):
        for stage, number in enumerate(world.m):
            handed_on = by_definition(world.tables[: stage + 1], world.m[:stage], query, number)
            wanted[stage + 1] |= {at for at, _ in handed_on}
    for table, images in zip(world.tables[1:], wanted[1:], strict=True):
        assert sorted(table.asked) == sorted(images)
    assert cascade.encoded[1:] == tuple(map(len, wanted[1:]))
    assert cascade.f_measured == tuple(len(each) / world.images for each in wanted[1:])


@unhurried
@given(collections())
def test_indexing_in_parts_is_indexing_at_once(world):
    whole, parts = (Cascade(world.tables, world.m) for _ in range(2))
    whole.index(range(world.images))
    half = world.images // 2
    parts.index(range(half))
    parts.search_many(["0"], 3)
    parts.index(range(half, world.images), keys=range(half, world.images))
    assert parts.search("0", 12) == whole.search("0", 12)


@unhurried
@given(collections(), st.sets(st.integers(0, 11)), st.integers(1, 15))
def test_an_image_that_was_removed_might_as_well_never_have_been_there(world, removed, k):
    rest = [image for image in range(world.images) if image not in removed]
    removing, never = (Cascade(world.tables, world.m) for _ in range(2))
    removing.index(range(world.images))
    removing.search_many(["0"], k)
    assert removing.remove(removed) == world.images - len(rest)
    assert removing.remove(removed) == 0
    never.index(rest, keys=rest)
    queries = [str(query) for query in range(world.queries)]
    assert len(removing) == len(rest)
    assert removing.search_many(queries, k) == never.search_many(queries, k)
    assert [image in removing for image in range(world.images)] == [
        image in rest for image in range(world.images)
    ]
    removing.index(sorted(removed & set(range(world.images))))
    assert len(removing) == world.images


def lines(*scores):
    """A table of images with these scores for the query "0"."""
    return Table(torch.tensor(scores, dtype=torch.float32)[:, None], torch.ones(1, 1))


def test_a_last_stage_can_only_reorder_what_it_is_handed():
    cascade = Cascade([lines(4, 3, 2, 1), lines(1, 2, 3, 4)], m=[2])
    cascade.index("abcd"[i] for i in range(0))
    cascade.index(range(4), keys="abcd")
    assert cascade.search("0", 4) == [
        Hit("b", 2, 1),
        Hit("a", 1, 1),
        Hit("c", 2, 0),
        Hit("d", 1, 0),
    ]
    assert cascade.search("0", 1) == [Hit("b", 2, 1)]


def test_an_unreadable_image_is_skipped_counted_and_named():
    first = lines(1, 2, 3, 4, 5)
    first.unreadable = {1, 4}
    cascade = Cascade([first], batch_size=4)
    assert cascade.index(range(5), keys="abcde") == 3
    assert cascade.skipped == {"b": "no", "e": "no"}
    assert len(cascade) == 3
    assert [key in cascade for key in "abcde"] == [True, False, True, True, False]
    assert [hit.key for hit in cascade.search("0", 9)] == ["d", "c", "a"]
    first.unreadable = set()
    assert cascade.index([4], keys=["e"]) == 1  # mended since
    assert cascade.skipped == {"b": "no"}
    assert cascade.search("0", 1)[0].key == "e"


def test_an_image_that_went_away_is_no_result_until_it_is_back():
    last = lines(1, 2, 3, 4)
    last.unreadable = {1}
    cascade = Cascade([lines(4, 3, 2, 1), last], m=[2])
    cascade.index(range(4))
    for _ in range(2):
        assert [hit.key for hit in cascade.search("0", 4)] == [0, 2, 3]
    assert cascade.skipped == {1: "no"}
    assert cascade.encoded == (4, 1)
    assert last.asked == [0]
    last.unreadable = set()
    assert [hit.key for hit in cascade.search("0", 4)] == [1, 0, 2, 3]
    assert (cascade.skipped, cascade.encoded, last.asked) == ({}, (4, 2), [0, 1])


def test_a_cascade_whose_candidates_all_went_away_falls_back_to_the_rest():
    last = lines(1, 2, 3, 4)
    last.unreadable = {0, 1}
    cascade = Cascade([lines(4, 3, 2, 1), last], m=[2])
    cascade.index(range(4))
    assert [hit.key for hit in cascade.search("0", 4)] == [2, 3]


def test_stages_with_one_text_tower_encode_a_query_once():
    tables = [lines(1, 2), lines(2, 1), lines(1, 1)]
    tables[2].text_name = "another"
    cascade = Cascade(tables, m=[2, 1])
    cascade.index(range(2))
    cascade.search_many(["0", "0"], 1)
    assert [table.asked_texts for table in tables] == [["0"], [], ["0"]]


def test_images_stay_closed_until_a_stage_wants_them(clip_directory, tmp_path):
    opened = []

    def lazily(number):
        def open_now():
            opened.append(number)
            return Image.new("RGB", (8, 8), (number * 40, 0, 0))

        return open_now

    stage = Stage.load(clip_directory)
    cascade = Cascade([stage, stage], m=[2])
    cascade.index(map(lazily, range(5)))
    assert opened == list(range(5))
    hits = cascade.search("a red disc", 2)
    assert sorted(opened[5:]) == sorted(hit.key for hit in hits)


def test_a_cascade_of_one_tower_twice_finds_what_the_tower_finds(clip_directory, tmp_path):
    generator = torch.Generator().manual_seed(1)
    files = []
    for number in range(6):
        pixels = torch.randint(0, 256, (16, 16, 3), generator=generator, dtype=torch.uint8)
        files.append(tmp_path / f"{number}.png")
        Image.fromarray(pixels.numpy()).save(files[-1])
    (tmp_path / "broken.png").write_bytes(b"oops")
    stage = Stage.load(clip_directory, batch_size=4)
    plain, cascade = Cascade([stage]), Cascade([stage, stage], m=[3])
    for each in (plain, cascade):
        each.index([*files, tmp_path / "broken.png"])
        assert list(each.skipped) == [str(tmp_path / "broken.png")]
        assert "cannot read" in each.skipped[str(tmp_path / "broken.png")]
    for query in ("a red disc", "big star"):
        found = [hit.key for hit in cascade.search(query, 6)]
        assert found == [hit.key for hit in plain.search(query, 6)]
        assert set(found) == {str(file) for file in files}


def test_an_empty_collection_has_no_hits_and_no_f():
    cascade = Cascade([lines(1), lines(1)])
    assert cascade.m == (50,)
    assert cascade.search("0", 3) == []
    assert cascade.search_many([], 3) == []
    with pytest.raises(ValueError, match="first stage"):
        _ = cascade.f_measured


@pytest.mark.parametrize(
    ("stages", "m", "complaint"),
    [
        (0, None, "at least one stage"),
        (1, [50], "1 stages hand"),
        (2, [], "2 stages hand"),
        (3, None, "3 stages hand"),
        (3, [10, 50], "decrease"),
        (3, [10, 10], "decrease"),
        (2, [0], "positive"),
    ],
)
def test_stages_and_m_must_fit(stages, m, complaint):
    with pytest.raises(ValueError, match=complaint):
        Cascade([lines(1)] * stages, m)


def test_keys_are_unique_and_one_an_image():
    cascade = Cascade([lines(1, 2, 3)])
    cascade.index([0], keys=["a"])
    with pytest.raises(ValueError, match="'a' is in use"):
        cascade.index([1], keys=["a"])
    with pytest.raises(ValueError, match="'b' is in use"):
        cascade.index([1, 2], keys=["b", "b"])
    with pytest.raises(ValueError, match="1 images came with 2 keys"):
        cascade.index([1], keys=["b", "c"])
    with pytest.raises(ValueError, match="1 images came with 2 keys"):
        cascade.index((each for each in [1]), keys=["b", "c"])
    with pytest.raises(ValueError, match="more than 1 images came with 1 keys"):
        cascade.index((each for each in [1, 2]), keys=["b"])
    assert len(cascade) == 1


@pytest.mark.parametrize("k", [0, -1, 2.5])
def test_k_must_be_a_positive_whole_number(k):
    cascade = Cascade([lines(1)])
    with pytest.raises(ValueError, match="k must be"):
        cascade.search("0", k)


def test_a_single_string_is_not_a_list_of_queries():
    with pytest.raises(ValueError, match="use search"):
        Cascade([lines(1)]).search_many("0", 1)


def test_images_and_texts_of_different_dimensions_are_reported():
    cascade = Cascade([Table(torch.zeros(2, 3), torch.zeros(1, 4))])
    cascade.index(range(2))
    with pytest.raises(ValueError, match="3 dimensions, but queries to 4"):
        cascade.search("0", 1)


@pytest.mark.parametrize("numbers", [{"batch_size": 0}, {"state_limit": -1}])
def test_numbers_must_be_in_range(numbers):
    with pytest.raises(ValueError, match=next(iter(numbers))):
        Cascade([lines(1)], **numbers)
