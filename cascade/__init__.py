"""The search runtime: stages ordered cheap to expensive, joined in a cascade that a user embeds.

Each name is imported, with what it needs, when it is first asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cascade.cascade import Cascade, Hit, Hits
    from cascade.collecting.counting import Status
    from cascade.collecting.offers import Added
    from cascade.collecting.refining import Budget
    from cascade.collection import Collection
    from cascade.cost import lifetime_speedup, query_speedup
    from cascade.resume import ResumedStage
    from cascade.searching.states import States
    from cascade.stages.images import UnreadableImage
    from cascade.stages.stage import Stage
    from cascade.storing.errors import CollectionError
    from cascade.storing.rows import ImageRow

__all__ = [
    "Added",
    "Budget",
    "Cascade",
    "Collection",
    "CollectionError",
    "Hit",
    "Hits",
    "ImageRow",
    "ResumedStage",
    "Stage",
    "States",
    "Status",
    "UnreadableImage",
    "lifetime_speedup",
    "query_speedup",
]

_ON_DEMAND = {
    "Added": "cascade.collecting.offers",
    "Budget": "cascade.collecting.refining",
    "Cascade": "cascade.cascade",
    "Collection": "cascade.collection",
    "CollectionError": "cascade.storing.errors",
    "Hit": "cascade.cascade",
    "Hits": "cascade.cascade",
    "ImageRow": "cascade.storing.rows",
    "ResumedStage": "cascade.resume",
    "Stage": "cascade.stages.stage",
    "States": "cascade.searching.states",
    "Status": "cascade.collecting.counting",
    "UnreadableImage": "cascade.stages.images",
    "lifetime_speedup": "cascade.cost",
    "query_speedup": "cascade.cost",
}


def __getattr__(name: str) -> Any:
    if name not in _ON_DEMAND:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_ON_DEMAND[name]), name)
