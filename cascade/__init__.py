"""The search runtime: stages ordered cheap to expensive, joined in a cascade that a user embeds."""

from cascade.cascade import Cascade, Hit
from cascade.cost import lifetime_speedup, query_speedup
from cascade.images import UnreadableImage
from cascade.stage import Stage

__all__ = ["Cascade", "Hit", "Stage", "UnreadableImage", "lifetime_speedup", "query_speedup"]
