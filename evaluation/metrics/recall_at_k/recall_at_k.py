"""Recall@k as an `evaluate.Metric`; the numbers are `evaluation.retrieval.recall`'s."""

from collections.abc import Sequence

import datasets
import evaluate
import torch

from evaluation.retrieval import recall


class RecallAtK(evaluate.Metric):
    """Share of queries whose image is in the top k, in percent."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Share of queries whose image is in the top k, in percent. Ties count "
            "against the model.",
            citation="",
            inputs_description=(
                "predictions: for each query a row of scores, one per image, larger is better. "
                "references: the position of each query's image. ks: 1, 5, 10 by default. "
                'Returns {"recall@k": percent} for each k.'
            ),
            features=datasets.Features(
                {
                    "predictions": datasets.Sequence(datasets.Value("float64")),
                    "references": datasets.Value("int64"),
                }
            ),
        )

    def _compute(
        self,
        predictions: Sequence[Sequence[float]],
        references: Sequence[int],
        ks: Sequence[int] = (1, 5, 10),
    ) -> dict[str, float]:
        found = recall(torch.tensor(predictions, dtype=torch.float64), torch.tensor(references), ks)
        return {f"recall@{k}": value for k, value in found.items()}
