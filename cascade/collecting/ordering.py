"""In what order the last stage encodes images in the background.

Images that queries have promoted come first, then those nearest to them, then the rest: queries
are alike, and so are the images that they bring up. What each image is near to is kept, so the
order follows new promotions without comparing all images with all promoted ones again.
"""

import torch
from torch import Tensor

from cascade.cascade import Cascade
from cascade.searching.blocks import FirstRows

_NEAR = 256
"""Promoted images that the others are compared with, each time that there are new ones."""


class BackgroundOrder:
    """The order of the images of one cascade; it grows with it."""

    def __init__(self, cascade: Cascade, tried: Tensor) -> None:
        """Make one.

        Args:
            cascade: the cascade, which has at least two stages.
            tried: int64, positions that are left out, and to which nothing is near.
        """
        self._cascade = cascade
        self._seen = {stage.place: 0 for stage in cascade.later}
        self._tried = torch.zeros(0, dtype=torch.bool)
        self._promoted = torch.zeros(0, dtype=torch.bool)
        self._nearness = torch.empty(0)  # the largest product with any of the targets
        self._targets = torch.empty(0, dtype=torch.int64)
        self._grow(cascade.catalogue.contents.rows)
        self.leave_out(tried)

    def leave_out(self, positions: Tensor) -> None:
        """Never give these again, as they are encoded now or can't be."""
        self._tried[positions] = True

    def next(self, number: int) -> Tensor:
        """The next positions that the last stage has not encoded, up to so many: int64."""
        self._follow()
        last, contents = self._cascade.later[-1], self._cascade.catalogue.contents
        count = len(self._tried)
        open_still = last.store.absent(torch.arange(count)) & ~self._tried
        open_still[contents.hidden[contents.hidden < count]] = False
        waiting = (open_still & self._promoted).nonzero().flatten()[:number]
        others = (open_still & ~self._promoted).nonzero().flatten()
        nearest = _highest(self._nearness[others], number - len(waiting))
        return torch.cat([waiting, others[nearest]])

    def _follow(self) -> None:
        """Take in new images, and what was promoted since the last time."""
        new = self._newly_promoted()
        rows = self._cascade.catalogue.contents.rows  # after these: it holds all of them
        self._grow(rows)
        new = new[~self._tried[new] & ~self._promoted[new]]
        self._promoted[new] = True
        self._compare(rows, 0, new[-_NEAR:])
        self._targets = torch.cat([self._targets, new[-_NEAR:]])[-_NEAR:]

    def _grow(self, rows: FirstRows) -> None:
        """Take in images that are new."""
        before = len(self._tried)
        more = rows.count - before
        if not more:
            return
        self._tried = torch.cat([self._tried, torch.zeros(more, dtype=torch.bool)])
        self._promoted = torch.cat([self._promoted, torch.zeros(more, dtype=torch.bool)])
        self._nearness = torch.cat([self._nearness, torch.full((more,), float("-inf"))])
        self._compare(rows, before, self._targets)

    def _newly_promoted(self) -> Tensor:
        """Positions that a later stage has encoded or was asked for, the newest last."""
        later = self._cascade.later
        found = [torch.tensor(list(later[-1].store.failures), dtype=torch.int64)]
        for stage in later:
            positions = torch.from_numpy(stage.store.held.positions)
            found.append(positions[self._seen[stage.place] :])
            self._seen[stage.place] = len(positions)
        return torch.cat(found)

    def _compare(self, rows: FirstRows, start: int, targets: Tensor) -> None:
        """Let images from a position on know these targets."""
        if not len(targets):
            return
        near = rows.at(targets).float().T
        for positions, embeddings in rows.blocks(start):
            nearest = (embeddings.float() @ near).amax(dim=1)
            self._nearness[positions] = torch.maximum(self._nearness[positions], nearest)


def _highest(values: Tensor, number: int) -> Tensor:
    """Where so many of the highest values are, in their order; of equal ones the first."""
    if not number:
        return torch.empty(0, dtype=torch.int64)
    least = values.topk(min(number, len(values))).values[-1:]
    places = (values >= least).nonzero().flatten()
    return places[values[places].argsort(descending=True, stable=True)][:number]
