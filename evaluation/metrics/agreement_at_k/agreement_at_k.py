"""agreement@k as an `evaluate.Metric`; the number is `evaluation.retrieval.agreement`'s."""

from collections.abc import Sequence

import datasets
import evaluate
import torch

from evaluation.retrieval import agreement


class AgreementAtK(evaluate.Metric):
    """Share of the full tower's own top-k results that a cascade returns too, in percent."""

    def _info(self) -> evaluate.MetricInfo:
        row = datasets.Sequence(datasets.Value("int64"))
        return evaluate.MetricInfo(
            description="Share of the full tower's own top-k results that a cascade "
            "returns too, in percent. Needs no true captions.",
            citation="",
            inputs_description=(
                "predictions: for each query the positions of the k images that the cascade "
                "returns, -1 = nothing returned. references: the same for the full tower. "
                'Returns {"agreement": percent}.'
            ),
            features=datasets.Features({"predictions": row, "references": row}),
        )

    def _compute(
        self, predictions: Sequence[Sequence[int]], references: Sequence[Sequence[int]]
    ) -> dict[str, float]:
        return {"agreement": agreement(torch.tensor(references), torch.tensor(predictions))}
