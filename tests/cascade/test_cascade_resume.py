"""A cascade with a stage that resumes finds what it would find without, and opens images once."""

import gc
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade import Cascade, ResumedStage, States, UnreadableImage
from tests.cascade.conftest import exit_of
from tests.cascade.test_cascade import Table, by_definition, collections, lines
from tests.lanes import examples

unhurried = settings(deadline=None, max_examples=examples(20, 60))
QUERIES = ["a red disc", "big blue star on the left", "square"]


class ResumingTable:
    """A table that resumes: the states of image i are the number i."""

    def __init__(self, table, first):
        self.table, self.first = table, first
        self.name, self.text_name = f"{table.name} resumed", table.text_name
        self.resumes = first.name
        self.encode_texts = table.encode_texts
        self.asked = []

    def encode_images(self, images):
        raise AssertionError("a stage that resumes opens no image")

    def encode_first(self, images):
        embeddings = self.first.encode_images(images)
        return embeddings, States(torch.tensor(images)[:, None, None])

    def encode_states(self, states):
        numbers = states.hidden.flatten().tolist()
        self.asked += numbers
        return self.table.images[numbers]


@unhurried
@given(collections(stages=4), st.integers(1, 15), st.data())
def test_results_are_those_of_the_definition_whichever_stage_resumes(world, k, data):
    stages = list(world.tables)
    for place in range(1, len(stages)):
        free = [at for at in range(place) if isinstance(stages[at], Table)]
        taken = [each.first for each in stages if isinstance(each, ResumingTable)]
        free = [at for at in free if all(stages[at] is not each for each in taken)]
        if free and data.draw(st.booleans()):
            first = stages[data.draw(st.sampled_from(free))]
            stages[place] = ResumingTable(stages[place], first)
    cascade = Cascade(stages, world.m, batch_size=2)
    half = world.images // 2
    cascade.index(range(half), keys=range(half))
    cascade.search("0", k)
    cascade.index(range(half, world.images), keys=range(half, world.images))
    for query in range(world.queries):
        hits = cascade.search(str(query), k)
        expected = by_definition(world.tables, world.m, query, k)
        assert [(hit.key, hit.stage) for hit in hits] == expected
    for stage, number in zip(stages, cascade.encoded, strict=True):
        assert len(stage.asked) == len(set(stage.asked)) == number


def test_states_are_forgotten_once_they_were_used():
    first, last = lines(4, 3, 2, 1), lines(1, 2, 3, 4)
    cascade = Cascade([first, ResumingTable(last, first)], m=[3])
    assert cascade.state_bytes == 0
    cascade.index(range(4))
    assert cascade.state_bytes == 4 * 8  # one int64 an image
    cascade.search("0", 1)
    assert cascade.state_bytes == 1 * 8
    assert [hit.key for hit in cascade.search("0", 4)] == [2, 1, 0, 3]


def test_images_whose_states_were_dropped_are_opened_again():
    first, last = lines(4, 3, 2, 1), lines(1, 2, 3, 4)
    resuming = ResumingTable(last, first)
    resuming.encode_images = last.encode_images
    cascade = Cascade([first, resuming], m=[4], state_limit=2 * 8)
    cascade.index(range(4))
    assert (cascade.state_bytes, cascade.states_dropped) == (2 * 8, 2)
    last.unreadable = {0}
    assert [hit.key for hit in cascade.search("0", 4)] == [3, 2, 1]
    assert (last.asked, resuming.asked, cascade.skipped) == ([1], [2, 3], {0: "no"})
    last.unreadable = set()
    assert [hit.key for hit in cascade.search("0", 4)] == [3, 2, 1, 0]
    assert (last.asked, resuming.asked, cascade.state_bytes) == ([1, 0], [2, 3], 0)


def test_states_survive_a_resuming_stage_that_failed():
    first = lines(4, 3, 2, 1)
    resuming = ResumingTable(lines(1, 2, 3, 4), first)
    cascade = Cascade([first, resuming], m=[3])
    cascade.index(range(4))
    whole, resuming.encode_states = resuming.encode_states, None
    with pytest.raises(TypeError):
        cascade.search("0", 1)
    resuming.encode_states = whole
    assert [hit.key for hit in cascade.search("0", 3)] == [2, 1, 0]


def test_an_unreadable_image_has_no_states_and_is_named():
    first, last = lines(1, 2, 3, 4, 5), lines(5, 4, 3, 2, 1)
    first.unreadable = {1, 4}
    cascade = Cascade([first, ResumingTable(last, first)], m=[3], batch_size=4)
    assert cascade.index(range(5), keys="abcde") == 3
    assert cascade.skipped == {"b": "no", "e": "no"}
    assert cascade.state_bytes == 3 * 8
    assert [hit.key for hit in cascade.search("0", 9)] == ["a", "c", "d"]


def test_a_resumed_stage_in_the_middle_keeps_no_states_of_what_it_could_not_read():
    """Stage 1 opens candidates, and stage 2 resumes from those that still open."""
    first, middle, last = lines(4, 3, 2, 1), lines(1, 2, 3, 4), lines(4, 3, 2, 1)
    middle.name, middle.unreadable = "middle", {1}
    cascade = Cascade([first, middle, ResumingTable(last, middle)], m=[3, 2])
    cascade.index(range(4))
    assert cascade.state_bytes == 0
    assert [hit.key for hit in cascade.search("0", 4)] == [0, 2, 3]
    assert (cascade.skipped, cascade.encoded, cascade.state_bytes) == ({1: "no"}, (4, 2, 2), 0)


def test_a_stage_must_come_after_the_one_that_it_resumes_from():
    first, last = lines(1), lines(1)
    first.name = "another"
    with pytest.raises(ValueError, match="stage 1 resumes from a stage that isn't before it"):
        Cascade([last, ResumingTable(last, first)])


@pytest.fixture
def opened(pictures):
    """Functions that open the pictures, and the numbers of those that were opened, in order."""
    numbers = []

    def opener(number):
        def open_now():
            numbers.append(number)
            if pictures[number] is None:
                raise FileNotFoundError(number)
            return pictures[number]

        return open_now

    return [opener(number) for number in range(len(pictures))], numbers


def hits(cascade, k=5):
    return [[(hit.key, hit.stage) for hit in found] for found in cascade.search_many(QUERIES, k)]


def test_the_hits_are_those_without_resumption_and_no_image_is_opened_again(full, opened):
    sources, numbers = opened
    first = exit_of(full)
    plain = Cascade([first, full], m=[3], batch_size=2)
    resuming = Cascade([first, ResumedStage(full, first, dtype=torch.float32)], m=[3], batch_size=2)
    found = []
    for cascade in (plain, resuming):
        numbers.clear()
        cascade.index(sources[:3])
        hits(cascade)
        cascade.index(sources[3:])
        found.append(hits(cascade))
    assert numbers == [0, 1, 2, 3, 4]  # as they were indexed, and then never
    assert found[0] == found[1]
    assert resuming.encoded == plain.encoded
    for one, other in zip(resuming.search("square", 5), plain.search("square", 5), strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-5)


def test_images_that_no_stage_opens_again_are_not_held(full, pictures):
    first = exit_of(full)
    cascade = Cascade([first, ResumedStage(full, first)], m=[2])
    held = pictures[0].copy()
    gone = weakref.ref(held)
    cascade.index([held])
    del held
    gc.collect()
    assert gone() is None
    assert len(cascade.search("square", 1)) == 1


def test_pictures_are_held_where_their_states_are_not(full, pictures):
    """Of each there is its states or itself until the resuming stage has encoded it."""
    first = exit_of(full)
    resumed = ResumedStage(full, first, dtype=torch.float32)
    plain = Cascade([first, full], m=[5])
    plain.index(pictures)
    limit = 2 * resumed.encode_first(pictures[:1])[1].bytes_per_image
    held = [each.copy() for each in pictures]
    gone = [weakref.ref(each) for each in held]
    cascade = Cascade([first, resumed], m=[5], state_limit=limit)
    cascade.index(held)
    del held
    gc.collect()
    assert [each() is None for each in gone] == [True, True, False, False, False]
    assert (cascade.state_bytes, cascade.states_dropped) == (limit, 3)
    assert hits(cascade) == hits(plain)
    gc.collect()
    assert all(each() is None for each in gone)
    assert cascade.state_bytes == 0


@pytest.mark.parametrize("limit", [0, 3000])
def test_hits_are_the_same_whatever_may_be_kept(full, opened, limit):
    sources, _ = opened
    first = exit_of(full)
    resumed = ResumedStage(full, first, dtype=torch.float32)
    found = []
    for state_limit in (2**30, limit):
        cascade = Cascade([first, resumed], m=[3], batch_size=2, state_limit=state_limit)
        cascade.index(sources)
        found.append(hits(cascade))
        assert cascade.state_bytes <= state_limit
    assert found[0] == found[1]


def test_a_third_stage_that_does_not_resume_opens_its_candidates_only(full, opened):
    sources, numbers = opened
    first, middle = exit_of(full, 1), exit_of(full, 3)
    resumed = ResumedStage(middle, first, dtype=torch.float32)
    cascade = Cascade([first, resumed, full], m=[4, 2])
    plain = Cascade([first, middle, full], m=[4, 2])
    plain.index(sources)
    expected = hits(plain)
    numbers.clear()
    cascade.index(sources)
    assert hits(cascade) == expected
    assert len(numbers) == 5 + cascade.encoded[2]
    assert cascade.encoded[2] < 5


def test_an_image_that_went_away_after_indexing_is_found_all_the_same(full, opened, pictures):
    sources, _ = opened
    first = exit_of(full)
    cascade = Cascade([first, ResumedStage(full, first)], m=[5])
    pictures[3] = None  # an unreadable one from the start
    assert cascade.index(sources) == 4
    assert list(cascade.skipped) == [3]
    pictures[:] = [None] * 5
    assert sorted(hit.key for hit in cascade.search("a red disc", 5)) == [0, 1, 2, 4]
    assert list(cascade.skipped) == [3]
    with pytest.raises(UnreadableImage):
        first.encode_images(sources)
