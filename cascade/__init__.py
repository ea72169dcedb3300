"""The search runtime: stages ordered cheap to expensive, joined in a cascade that a user embeds."""

from cascade.cascade import Cascade, Hit
from cascade.cost import lifetime_speedup, query_speedup
from cascade.images import UnreadableImage
from cascade.resume import ResumedStage
from cascade.stage import Stage
from cascade.states import States

__all__ = [
    "Cascade",
    "Hit",
    "ResumedStage",
    "Stage",
    "States",
    "UnreadableImage",
    "lifetime_speedup",
    "query_speedup",
]
