"""Recall and agreement as `evaluate.Metric`s, for programs that are built on `evaluate`.

`evaluate.load("DIRECTORY/evaluation/metrics/recall_at_k")` works too; nothing here needs a
network. The numbers are those of `evaluation.retrieval`.
"""

from pathlib import Path

import evaluate

NAMES = ("recall_at_k", "agreement_at_k")


def load(name: str) -> evaluate.Metric:
    """Load a metric of this project by name.

    Args:
        name: "recall_at_k" or "agreement_at_k".

    Raises:
        ValueError: there is no such metric.
    """
    if name not in NAMES:
        raise ValueError(f"there is no metric {name!r}; choose {' or '.join(NAMES)}")
    return evaluate.load(str(Path(__file__).parent / name), module_type="metric")
