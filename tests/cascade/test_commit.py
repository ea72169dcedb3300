"""Whatever interrupts a cascade, each key keeps its own embeddings: all of a step or nothing.

INTERRUPTS and CASCADES set how many interrupts and cascades are tried; few by default.
"""

import ctypes
import os
import pickle
import random
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from cascade import Cascade, States, UnreadableImage
from cascade.searching.catalogue import Contents

INTERRUPTS = int(os.environ.get("INTERRUPTS", "60"))
CASCADES = int(os.environ.get("CASCADES", "3"))
IMAGES, THREADS = 120, 8
PATIENCE = 120  # seconds after which threads that wait for each other are a failure


class Known:
    """An encoder that knows its answers, and whether it was asked properly."""

    def __init__(self, seed, dimension=8, images=IMAGES):
        generator = torch.Generator().manual_seed(seed)
        table = torch.randn(images, dimension, generator=generator)
        self.table = torch.nn.functional.normalize(table, dim=1)
        self.name = self.text_name = f"known {seed}"
        self.batches, self.busy, self.crowded = [], False, False

    def encode_images(self, images):
        self.crowded |= self.busy
        self.busy = True
        try:
            self.batches.append(list(images))
            return self.table[list(images)]
        finally:
            self.busy = False

    def encode_texts(self, texts):
        return self.table[[int(text) for text in texts]]


class Resumed(Known):
    """One that goes on from another's states, which are the images' numbers."""

    def __init__(self, seed, first):
        super().__init__(seed)
        self.first, self.resumes = first, first.name

    def encode_first(self, images):
        return self.first.encode_images(images), States(torch.tensor(images)[:, None, None])

    def encode_states(self, states):
        return self.encode_images(states.hidden.flatten().tolist())


KINDS = ["one stage", "two stages", "three stages", "resumed", "resumed with a limit"]


def made(kind, batch_size=4):
    first = Known(0)
    stages = {
        "one stage": [first],
        "two stages": [first, Known(1)],
        "three stages": [first, Known(1), Known(2)],
    }.get(kind) or [first, Resumed(1, first)]
    m = {1: [], 2: [10], 3: [10, 4]}[len(stages)]
    limit = 8 * IMAGES // 3 if kind == "resumed with a limit" else 2**30
    return Cascade(stages, m, batch_size=batch_size, state_limit=limit)


QUERIES = [str(query) for query in range(IMAGES)]


def all_hits(cascade):
    return cascade.search_many(QUERIES, 12)


@pytest.fixture(scope="module")
def undisturbed():
    found = {}
    for kind in KINDS:
        cascade = made(kind)
        cascade.index(range(IMAGES), keys=range(IMAGES))
        found[kind] = all_hits(cascade)
    return found


def index_the_rest(cascade):
    rest = [image for image in range(IMAGES) if image not in cascade]
    cascade.index(rest, keys=rest)


def interrupted(work, seconds):
    """Whether work was interrupted, as by Ctrl-C, so many seconds after it began."""

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            work()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        return True
    finally:
        signal.signal(signal.SIGALRM, before)
    return False


def seconds_of(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs interval timers")
@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupt_of_index_or_search_leaves_every_key_its_embeddings(kind, undisturbed):
    cascade, chance = made(kind), random.Random(kind)
    indexing = seconds_of(lambda: index_the_rest(cascade))
    searching = seconds_of(lambda: all_hits(cascade))
    happened = 0
    while happened < max(2, INTERRUPTS // len(KINDS)):
        cascade = made(kind)
        happened += interrupted(partial(index_the_rest, cascade), chance.uniform(1e-5, indexing))
        assert len(cascade) == sum(image in cascade for image in range(IMAGES))
        interrupted(partial(all_hits, cascade), chance.uniform(1e-5, searching))
        index_the_rest(cascade)
        assert all_hits(cascade) == undisturbed[kind]
        assert max(cascade.encoded) == IMAGES
        assert cascade.state_bytes <= 8 * IMAGES // 3 or kind == "resumed"


class Disturbed(Exception):  # noqa: N818 - no error of anybody's
    pass


@pytest.fixture
def busy_switching():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def index_and_search(cascade, worker, truths):
    """One thread's work: index its images by and by, search, and check every score it gets."""
    chance = random.Random(worker)
    mine = list(range(worker, IMAGES, THREADS))
    while True:
        rest = [image for image in mine if image not in cascade]
        if rest:
            some = rest[: chance.randint(1, 6)]
            cascade.index(some, keys=some)
        queries = [str(chance.randrange(IMAGES)) for _ in range(chance.choice([1, 1, 3]))]
        for query, found in zip(queries, cascade.search_many(queries, 5), strict=True):
            for hit in found:
                table = truths[hit.stage]
                truth = (table[hit.key] * table[int(query)]).sum().item()
                assert hit.score == pytest.approx(truth, abs=1e-6)
        if not rest:
            return


@pytest.mark.parametrize("kind", KINDS)
def test_threads_that_index_and_search_at_once_get_what_one_would(
    kind, undisturbed, busy_switching
):
    for _ in range(max(1, CASCADES // len(KINDS))):
        cascade = made(kind)
        truths = [stage.table for stage in cascade.stages]
        with ThreadPoolExecutor(THREADS) as pool:
            work = [
                pool.submit(index_and_search, cascade, worker, truths) for worker in range(THREADS)
            ]
            for each in work:
                each.result(PATIENCE)
        assert all_hits(cascade) == undisturbed[kind]
        for stage, number in zip(cascade.stages, cascade.encoded, strict=True):
            asked = [image for batch in stage.batches for image in batch]
            if kind != "resumed with a limit":  # there images are encoded from the start again
                assert len(asked) == len(set(asked)) == number
            assert not stage.crowded
        assert cascade.encoded[0] == len(cascade) == IMAGES


def disturb(thread):
    """Raise `Disturbed` in a thread, wherever it is."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident), ctypes.py_object(Disturbed)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_threads_that_are_interrupted_leave_nothing_that_others_wait_for(
    kind, undisturbed, busy_switching
):
    wanted = max(2, INTERRUPTS // len(KINDS))
    cascade = made(kind, batch_size=2)
    truths = [stage.table for stage in cascade.stages]
    state = SimpleNamespace(cascade=cascade, stop=False, failures=[], disturbed=0)

    def work(worker):
        while not state.stop:
            try:
                index_and_search(state.cascade, worker, truths)
                time.sleep(0.001)
            except Disturbed:
                state.disturbed += 1
            except BaseException as error:
                state.failures.append(error)
                return

    def guarded(worker):
        try:
            work(worker)
        except Disturbed:  # while it dealt with the one before
            if not state.stop:
                guarded(worker)

    threads = [threading.Thread(target=guarded, args=(n,), daemon=True) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    chance = random.Random(kind)
    end = time.monotonic() + PATIENCE
    while state.disturbed < wanted and time.monotonic() < end and not state.failures:
        time.sleep(chance.uniform(0, 0.002))
        disturb(chance.choice(threads))
        if len(cascade) == IMAGES and chance.random() < 0.1:
            fresh = made(kind, batch_size=2)
            index_the_rest(cascade)
            assert all_hits(cascade) == undisturbed[kind]
            state.cascade = cascade = fresh
    state.stop = True
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert not state.failures
    assert state.disturbed >= wanted
    index_the_rest(cascade)
    assert all_hits(cascade) == undisturbed[kind]


def waiting_for(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


class Held(Known):
    """One whose first call lasts until it is let go."""

    def __init__(self, seed, error=None):
        super().__init__(seed)
        self.go, self.error = threading.Event(), error

    def encode_images(self, images):
        found = super().encode_images(images)
        if len(self.batches) == 1:
            self.go.wait(PATIENCE)
        if self.error is not None and self.error in images:
            raise RuntimeError(f"I don't like image {self.error}")
        return found


def searched_at_once(last, number=5):
    """What threads get whose queries each bring up one image, while the first is being encoded."""
    first = Known(0)
    cascade = Cascade([first, last], m=[1], batch_size=16)
    cascade.index(range(IMAGES), keys=range(IMAGES))

    def search(query):
        try:
            return cascade.search(str(query), 1)[0].key
        except RuntimeError as error:
            return str(error)

    with ThreadPoolExecutor(number) as pool:
        work = [pool.submit(search, 0)]
        waiting_for(lambda: last.batches)
        work += [pool.submit(search, query) for query in range(1, number)]
        waiting_for(lambda: len(cascade._later[0]._waiting) == number)
        last.go.set()
        return [each.result(PATIENCE) for each in work]


def test_what_threads_wait_for_is_encoded_together():
    last = Held(1)
    assert searched_at_once(last) == [0, 1, 2, 3, 4]
    assert [sorted(batch) for batch in last.batches] == [[0], [1, 2, 3, 4]]


def test_an_error_is_raised_where_the_image_was_asked_for_and_nowhere_else():
    last = Held(1, error=2)
    expected = [0, 1, "I don't like image 2", 3, 4]
    assert searched_at_once(last) == expected


@pytest.mark.parametrize("wrong", ["dimension", "rows", "a vector", "integers"])
@pytest.mark.parametrize("stage", [0, 1])
def test_a_stage_that_answers_wrongly_once_has_changed_nothing(stage, wrong, undisturbed):
    cascade = made("two stages")
    broken = cascade.stages[stage]
    right = broken.encode_images

    def wrongly(images):
        found = right(images)
        return {
            "dimension": found[:, :-1], "rows": found[1:], "a vector": found[:, 0],
            "integers": found.int(),
        }[wrong]  # fmt: skip

    if stage == 0:
        cascade.index(range(8), keys=range(8))
        broken.encode_images = wrongly
        with pytest.raises(ValueError, match=r"stage 0 gave|dimensions, those before had"):
            cascade.index(range(8, 20), keys=range(8, 20))
        broken.encode_images = right
        assert (len(cascade), cascade.skipped) == (8, {})
        index_the_rest(cascade)
    else:
        index_the_rest(cascade)
        broken.encode_images = wrongly
        with pytest.raises(ValueError, match="stage 1 gave"):
            cascade.search("0", 5)
        broken.encode_images = right
        assert cascade.encoded == (IMAGES, 0)
    assert all_hits(cascade) == undisturbed["two stages"]


@pytest.mark.parametrize("stage", [0, 1])
@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_an_embedding_that_is_not_finite_is_no_hit_but_a_skip(stage, number):
    cascade = made("two stages")
    cascade.stages[stage].table[7, 3] = number
    cascade.index(range(IMAGES), keys=range(IMAGES))
    queries = [query for query in QUERIES if query != "7"]
    hits = [hit for found in cascade.search_many(queries, IMAGES) for hit in found]
    assert (7 in cascade) == (stage == 1)
    assert (7, stage) not in {(hit.key, hit.stage) for hit in hits}
    assert all(abs(hit.score) <= 1.001 for hit in hits)
    assert cascade.skipped == {7: "its embedding is not finite"}
    with pytest.raises(ValueError, match=f"stage {stage} embeds the query '7' to numbers that are"):
        cascade.search("7", 1)


@pytest.mark.parametrize("texts", [["1", "2"], ["1"]])
def test_query_embeddings_must_be_one_a_text(texts):
    cascade = made("one stage")
    cascade.index(range(5))
    right = cascade.stages[0].encode_texts
    cascade.stages[0].encode_texts = lambda asked: right([*asked, "0"])
    with pytest.raises(ValueError, match=f"for {len(texts)} queries"):
        cascade.search_many(texts, 1)


class Opening(Known):
    """One whose images fail to open with the errors given."""

    def __init__(self, failures):
        super().__init__(0)
        self.failures = failures

    def encode_images(self, images):
        for image in images:
            if image in self.failures:
                raise self.failures[image]
        return super().encode_images(images)


def test_whatever_one_image_fails_with_is_the_reason_for_its_skip():
    failures = {
        1: UnreadableImage("cannot read it"), 5: FileNotFoundError(2, "No such file", "x.jpg"),
        6: MemoryError(), 11: OSError("the disk is gone"),
    }  # fmt: skip
    cascade = Cascade([Opening(failures)], batch_size=8)
    assert cascade.index(range(16), keys=range(16)) == 12
    assert cascade.skipped == {
        1: "cannot read it", 5: "FileNotFoundError: [Errno 2] No such file: 'x.jpg'",
        6: "MemoryError", 11: "OSError: the disk is gone",
    }  # fmt: skip
    assert cascade.search("5", 16)[-1].key not in failures


@pytest.mark.parametrize("error", [TypeError("no image"), ConnectionResetError(), RuntimeError()])
def test_the_errors_of_an_encoder_are_raised_and_nothing_is_added(error):
    first = Opening({9: error})
    cascade = Cascade([first], batch_size=8)
    with pytest.raises(type(error)):
        cascade.index(range(16))
    assert (len(cascade), cascade.skipped) == (8, {})
    first.failures = {}
    assert cascade.index(range(8, 16)) == 8
    assert [hit.key for hit in cascade.search("12", 1)] == [12]  # numbers go on where they were


def test_images_that_raise_on_their_way_leave_the_batches_before():
    def images():
        yield from range(10)
        raise OSError("the listing broke off")

    cascade = made("one stage")
    with pytest.raises(OSError, match="broke off"):
        cascade.index(images())
    assert len(cascade) == 8
    cascade.index(range(8, IMAGES))
    assert [hit.key for hit in cascade.search("9", 1)] == [9]


def test_threads_number_images_without_keys_one_by_one(busy_switching):
    cascade = made("one stage")
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda part: cascade.index(range(part, IMAGES, THREADS)), range(THREADS)))
    assert all(number in cascade for number in range(IMAGES))
    assert sorted(hit.key for hit in cascade.search("0", IMAGES)) == list(range(IMAGES))


def test_a_key_that_two_threads_want_goes_to_one_of_them(busy_switching):
    cascade = made("one stage")

    with ThreadPoolExecutor(THREADS) as pool:
        work = [pool.submit(cascade.index, range(40), keys=range(40)) for _ in range(THREADS)]
        errors = [str(each.exception(PATIENCE)) for each in work if each.exception(PATIENCE)]
    assert all("in use already" in error for error in errors)
    assert len(cascade) == 40
    for image in range(40):
        assert cascade.search(str(image), 1)[0].key == image


def test_an_image_that_was_released_is_not_taken_for_one_to_open():
    contents = Contents(keys=["there", "released"], sources=["there.jpg", None])
    assert contents.source(0) == "there.jpg"
    with pytest.raises(LookupError, match="'released' is no longer held"):
        contents.source(1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_cascade_is_pickled_with_what_it_knows(kind, undisturbed):
    cascade = made(kind)
    cascade.index(range(50), keys=range(50))
    cascade.search_many(QUERIES[:20], 3)
    copy = pickle.loads(pickle.dumps(cascade))
    assert (copy.encoded, copy.state_bytes) == (cascade.encoded, cascade.state_bytes)
    for each in (copy, cascade):  # and go on, each by itself
        index_the_rest(each)
        assert all_hits(each) == undisturbed[kind]


def test_a_cascade_goes_on_outside_of_the_inference_mode_that_it_began_in(undisturbed):
    cascade = made("two stages")
    with torch.inference_mode():
        cascade.index(range(50), keys=range(50))
        cascade.search_many(QUERIES[:20], 3)
    index_the_rest(cascade)
    assert all_hits(cascade) == undisturbed["two stages"]
