"""A tower that is to be made smaller, with what is found out about it once.

Stands between calibration images and every rule that scores units.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedModel

from compress.calibrating.cache import Cache, Value
from compress.calibrating.calibration import Calibration
from compress.calibrating.deploying import deployed
from compress.calibrating.moments import Moments, dense_moments
from compress.calibrating.token_weights import TokenWeights, token_weights
from compress.choices import Deployment
from pruning_mechanism import Mask, Tower, TowerKind
from pruning_mechanism.deployed.tower import Deployed

WEIGHT_SAMPLES = 256
"""Calibration images that token weights are averaged over."""


@dataclass(frozen=True)
class Subject:
    """A tower to be made smaller, and what it takes to score and repair it.

    `tower` has every layer as wide as it was before any pruning; `alive` says which of its units
    are still there, None for all. `texts` is the CLIP whose other tower gives the fixed side of a
    contrastive loss. `key` tells it from the others that share its cache. What is made of it will
    be computed in `deployed_dtype`; None: as it is computed here.
    """

    tower: Tower
    calibration: Calibration
    texts: PreTrainedModel | None = None
    alive: Mask | None = None
    cache: Cache = field(default_factory=Cache)
    key: Hashable = None
    deployed_dtype: torch.dtype | None = None

    @property
    def model(self) -> PreTrainedModel:
        """The model that the tower is one of."""
        return self.tower.model

    @property
    def kind(self) -> TowerKind:
        """Which of the model's towers it is."""
        return self.tower.kind

    def deployed(self, deployment: Deployment) -> Deployed:
        """The tower where results will run: what seconds are measured of."""
        return deployed(self.model, deployment, self.deployed_dtype)

    def once(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """What `make` gives, made at the first call under this key for this tower."""
        return self.cache.once((self.key, self.kind, key), make)

    def weights(self) -> list[TokenWeights]:
        """What each token after each sublayer matters to the embedding."""
        few = self.calibration.first(WEIGHT_SAMPLES)
        return self.once(("token weights", len(few)), lambda: token_weights(self.tower, few))

    def moments(self) -> list[Moments]:
        """Second moments of the sublayers, tokens weighted."""

        def sum_up() -> list[Moments]:
            return dense_moments(self.tower, self.calibration.batches("moments"), self.weights())

        return self.once(("moments", len(self.calibration)), sum_up)
