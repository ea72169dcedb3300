"""Processes that write to a collection until they are killed, and log what they were told is done.

    python -m tests.cascade.writer ORDERS STARTED

starts them by forking, as what they import takes seconds. It reads orders from a pipe, one a line:
collection, log, seed and name of a writer to start, whose number it answers on the other pipe.

Each line of the log is written at once. `try` says what is about to become of an image: the number
of its content, or nothing; `done` that it has. Every writer changes and removes images of its own,
and all add the same `shared` ones.
"""

import json
import os
import random
import signal
import sys

import lance_namespace  # noqa: F401 # the slowest part of lancedb, which itself starts a thread
import pyarrow.dataset  # noqa: F401

import cascade.collecting.adding as adding
from cascade import Budget, Collection
from cascade.storing.rows import ImageRow
from tests.cascade.known import Known, number_of

IMAGES, SHARED, OWN = 400, 60, 20
M = [12]


def stages():
    return [Known(0, IMAGES), Known(1, IMAGES)]


def row(key, number):
    return ImageRow(key, str(number), size=number, modified=number)


def write(path, log, seed, name, steps=10**6):
    """Do things at random, and say so."""
    rng = random.Random(seed)
    say = Log(log)
    with Collection.open(path, stages(), opener=number_of, batch_size=4) as collection:
        say("ready")
        for _ in range(steps):
            kind = rng.choice(
                ["share", "share", "own", "own", "remove", "move", "search", "refine"]
            )
            if rng.random() < 0.05:
                collection.compact(keep_seconds=rng.choice([0.5, 600]))
            _STEPS[kind](collection, rng, name, say)


class Log:
    """Appends a line in one call, which a kill can't undo."""

    def __init__(self, file):
        self.number = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def __call__(self, *entry):
        os.write(self.number, (json.dumps(entry) + "\n").encode())


def _share(collection, rng, name, say):
    numbers = rng.sample(range(SHARED), 8)
    _add(collection, {f"shared {number}": number for number in numbers}, say)


def _own(collection, rng, name, say):
    keys = [f"{name} {number}" for number in rng.sample(range(OWN), 5)]
    _add(collection, {key: rng.randrange(SHARED, IMAGES) for key in keys}, say)


def _add(collection, numbers, say):
    for key, number in numbers.items():
        say("try", key, number)
    collection.add(row(key, number) for key, number in numbers.items())
    for key, number in numbers.items():
        say("done", key, number)


def _remove(collection, rng, name, say):
    keys = [f"{name} {number}" for number in rng.sample(range(OWN), 2)]
    for key in keys:
        say("try", key, None)
    collection.remove(keys)
    for key in keys:
        say("done", key, None)


def _move(collection, rng, name, say):
    """To a name that is free, and that no other step uses before it moves back."""
    old, new = (f"{name} {number}" for number in rng.sample(range(OWN), 2))
    known = collection.row(old)
    if known is None or collection.row(new) is not None:
        return
    number = int(known.uri)
    say("try", old, None)
    say("try", new, number)
    collection.update(old, row(new, number))
    say("done", old, None)
    say("done", new, number)


def _search(collection, rng, name, say):
    collection.search_many([str(rng.randrange(IMAGES)) for _ in range(3)], 5)
    collection.flush()
    say("encoded", promoted(collection))


def _refine(collection, rng, name, say):
    collection.refine(Budget(images=rng.randrange(8)))
    say("encoded", promoted(collection))


def promoted(collection):
    """The shared images that the last stage has encoded."""
    view = collection._current()
    contents = view.cascade.catalogue.contents
    held = view.cascade.later[-1].store.held.positions.tolist()
    keys = {contents.keys[at] for at in held if at not in contents.gone}
    return sorted(key for key in keys if key.startswith("shared"))


def serve(orders, started):
    """Start a writer for each order, until there are none."""
    adding.SECONDS = 0.0  # every batch is a commit
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # whoever ends is gone at once
    with open(orders) as lines, open(started, "w", buffering=1) as answers:
        for line in lines:
            path, log, seed, name = json.loads(line)
            child = os.fork()
            if not child:
                lines.close()
                write(path, log, seed, name)
                os._exit(0)
            answers.write(f"{child}\n")


_STEPS = {
    "share": _share,
    "own": _own,
    "remove": _remove,
    "move": _move,
    "search": _search,
    "refine": _refine,
}


if __name__ == "__main__":
    serve(*sys.argv[1:])
