"""A process that migrates a collection, and is killed at one of the steps that reach the disk.

    python -m tests.cascade.migrating.migrator ORDERS ENDED

starts one by forking for each line of ORDERS, [collection, step, kind], and answers on the other
pipe with the signal that ended it: 0 if there was no such step. The kind is "restage" or "renew".
"""

import json
import os
import signal
import sys

import lance_namespace  # noqa: F401 # the slowest part of lancedb, which itself starts a thread
import numpy as np
import pyarrow.dataset  # noqa: F401
import torch

from cascade import Collection
from cascade.collecting import renewing, restaging
from cascade.collecting.renewing import Renewal
from cascade.collecting.restaging import Restaging
from cascade.stages.mapped import Map
from tests.cascade.known import Known, number_of

IMAGES, SEEN = 60, 5
M, NEW_M = [20], [15]


def stages():
    return [Known(0, IMAGES), Known(1, IMAGES)]


def new_last():
    return Known(2, IMAGES, dimension=12)


def the_map():
    generator = torch.Generator().manual_seed(3)
    return Map(torch.randn(16, 12, generator=generator), torch.randn(12, generator=generator))


def asked(collection):
    """A migration whose new last stage has encoded a few images."""
    ids = np.asarray([collection.id_of(f"image {number}") for number in range(SEEN)])
    return Restaging(the_map(), new_last(), NEW_M, ids, new_last().table[:SEEN].numpy())


def renewed(unreadable=()):
    """Another first stage."""
    return Known(5, IMAGES, unreadable=unreadable)


def migrate(path, step, kind):
    """Migrate, and end at that step: before or after something is written or removed."""
    with Collection.open(path, stages(), opener=number_of) as collection:
        wanted = asked(collection)
        steps = iter(range(10**6))

        def die():
            if next(steps) == step:
                os.kill(os.getpid(), signal.SIGKILL)

        def around(owner, name):
            work = getattr(owner, name)

            def done(*arguments, **named):
                die()
                result = work(*arguments, **named)
                die()
                return result

            setattr(owner, name, done)

        import cascade.storing.lance as lance

        around(lance.Table, "append")
        around(lance.shutil, "rmtree")
        around(restaging, "save_maps")
        around(restaging.Path, "replace")
        around(restaging.Path, "unlink")
        if kind == "renew":
            around(renewing.Record, "write")
            collection.renew(Renewal(renewed(), [12], batch_size=2))
        else:
            collection.restage(wanted)


def serve(orders, ended):
    """Start one for each order and wait for its end, until there are none."""
    with open(orders) as lines, open(ended, "w", buffering=1) as answers:
        for line in lines:
            path, step, kind = json.loads(line)
            child = os.fork()
            if not child:
                lines.close()
                migrate(path, step, kind)
                os._exit(0)
            _, status = os.waitpid(child, 0)
            assert os.WIFSIGNALED(status) or not status, status
            answers.write(f"{os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0}\n")


if __name__ == "__main__":
    serve(*sys.argv[1:])
