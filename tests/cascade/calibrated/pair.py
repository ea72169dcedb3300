"""A first stage that is near a full tower, and what could have been learnt of them."""

import torch

from cascade.calibrated.calibration import Calibration, Certainty, Membership
from tests.cascade.known import Known

IMAGES = 60
K = 5


class Near(Known):
    """A first stage whose table is another's, disturbed."""

    def __init__(self, other, noise=0.5):
        super().__init__(99, len(other.table), other.table.shape[1])
        table = other.table + noise * self.table
        self.table = torch.nn.functional.normalize(table, dim=1)
        self.name = "near"


def stages():
    full = Known(1, IMAGES)
    return [Near(full), full]


CALIBRATION = Calibration(
    stages=("near", "known 1"),
    k=K,
    depth=40,
    membership=Membership(-0.5, -0.8, -0.1, 4.0),
    certainty=Certainty(0.9, 0.5, 0.0, 1.0),
    share=0.9,
    agreement=0.9,
    confidence=0.95,
    queries=100,
    certified_on=100,
    of="queries",
    encoded=IMAGES,
    images=IMAGES,
)
