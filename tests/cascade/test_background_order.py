"""What the last stage encodes in the background comes in the order that promotions give it."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade import Cascade
from cascade.collecting.ordering import BackgroundOrder
from tests.cascade.known import Known
from tests.lanes import examples

steps = st.lists(
    st.tuples(
        st.sampled_from(["index", "promote", "fail", "remove", "encode"]), st.integers(0, 99)
    ),
    max_size=8,
)


class World:
    """A cascade of three stages, and in what order its images come by definition."""

    def __init__(self):
        self.first, self.middle, self.last = Known(1), Known(2), Known(3)
        self.cascade = Cascade([self.first, self.middle, self.last], [9, 5])
        self.promoted, self.tried = [], set()
        self.do("index", 20)

    def do(self, what, number):
        cascade, known = self.cascade, len(self.cascade.catalogue.contents.keys)
        at = number % known if known else 0
        middle, last = (stage.store for stage in cascade.later)
        if what == "index":
            cascade.index(range(known, known + number % 21))
        elif what == "remove":
            cascade.remove([at])
        elif what == "fail":
            last.fail(at, "it is broken")
        else:
            store = middle if what == "promote" else last
            store.fill([at], torch.ones(1, 16))
        if what in ("promote", "fail", "encode") and at not in (*self.promoted, *self.tried):
            self.promoted.append(at)

    def order(self):
        contents, last = self.cascade.catalogue.contents, self.cascade.later[-1].store
        every = range(contents.rows.count)
        still = [at for at in every if last.absent([at]).item() and at not in contents.gone]
        still = [at for at in still if at not in self.tried]
        waiting = [at for at in still if at in self.promoted]
        products = self.first.table[list(every)] @ self.first.table[self.promoted].T
        near = products.amax(dim=1).tolist() if self.promoted else [0.0] * len(every)
        others = [at for at in still if at not in self.promoted]
        return waiting + sorted(others, key=lambda at: -near[at])


@settings(deadline=None, max_examples=examples(15, 200))
@given(steps, st.integers(1, 30))
def test_promoted_images_come_first_then_those_nearest_to_them_then_the_rest(changes, number):
    world = World()
    order = BackgroundOrder(world.cascade, torch.tensor([3]))
    world.tried.add(3)
    for what, value in [("index", 0), *changes]:
        world.do(what, value)
        found = order.next(number)
        assert found.tolist() == world.order()[:number]
        order.leave_out(found[:2])
        world.tried.update(found[:2].tolist())
