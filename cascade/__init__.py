"""The search runtime: stages ordered cheap to expensive, joined in a cascade that a user embeds."""

from cascade.cost import lifetime_speedup, query_speedup

__all__ = ["lifetime_speedup", "query_speedup"]
