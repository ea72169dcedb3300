"""95 % bootstrap intervals for means over queries: recall, agreement, and their differences.

The captions of one image are alike, so queries aren't independent draws; images are. What is
resampled is therefore the image, with all its queries (the cluster bootstrap). All numbers of a
report share one set of resamples, which makes differences between rows paired.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from evaluation.measuring.values import Interval


class Bootstrap:
    """Percentile bootstrap over images, the same resamples for every statistic asked of it.

    Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13. The statistic is
    always a mean over queries; where images have different numbers of captions, so do resamples.
    """

    def __init__(self, images: Tensor, samples: int = 2000, seed: int = 0, level: float = 0.95):
        """Draw the resamples.

        Args:
            images: int [Q], the image that each query belongs to.
            samples: number of resamples.
            seed: of the draws.
            level: how much of the bootstrap distribution the interval covers, in (0, 1).

        Raises:
            ValueError: there is no query, or `samples` or `level` is out of range.
        """
        owners = np.asarray(torch.as_tensor(images).cpu())
        if owners.ndim != 1 or owners.size == 0:
            raise ValueError(f"images must be [queries], not empty, got shape {owners.shape}")
        if samples < 1 or not 0 < level < 1:
            raise ValueError(f"need samples ≥ 1 and 0 < level < 1, got {samples} and {level}")
        clusters, self._cluster = np.unique(owners, return_inverse=True)
        self._size = np.bincount(self._cluster).astype(np.float64)
        self._tails = ((1 - level) / 2, (1 + level) / 2)
        self._times = _draws(len(clusters), samples, np.random.default_rng(seed))
        self._queries = self._resampled(self._size)

    def interval(self, values: Tensor) -> Interval:
        """Mean of one value per query, in percent, with its interval.

        Args:
            values: bool or float [Q]; bools and shares of 1 become percent.

        Raises:
            ValueError: not one value per query, or a value isn't finite.
        """
        numbers = np.asarray(torch.as_tensor(values).cpu(), dtype=np.float64)
        if numbers.shape != self._cluster.shape:
            raise ValueError(f"need one value per query {self._cluster.shape}, got {numbers.shape}")
        if not np.isfinite(numbers).all():
            raise ValueError("values must be finite")
        totals = np.bincount(self._cluster, weights=numbers, minlength=len(self._size))
        low, high = np.quantile(100 * self._resampled(totals) / self._queries, self._tails)
        return Interval(float(100 * numbers.mean()), float(low), float(high))

    def difference(self, values: Tensor, reference: Tensor) -> Interval:
        """Mean of `values − reference` in percentage points; paired, query by query.

        Args:
            values: bool or float [Q], such as the cascade's hits.
            reference: bool or float [Q], such as the full tower's hits.

        Raises:
            ValueError: as `interval`.
        """
        values, reference = torch.as_tensor(values), torch.as_tensor(reference)
        if values.shape != reference.shape:
            raise ValueError(f"pairs differ: {tuple(values.shape)} and {tuple(reference.shape)}")
        return self.interval(values.cpu().double() - reference.cpu().double())

    def _resampled(self, totals: npt.NDArray[np.number[Any]]) -> npt.NDArray[np.float64]:
        """Sum of a cluster total [C] over each resample: [samples]."""
        block = max(1, (1 << 22) // self._times.shape[1])  # 32 MB of doubles at once
        parts = [
            self._times[start : start + block].astype(np.float64) @ totals
            for start in range(0, len(self._times), block)
        ]
        return np.concatenate(parts)


def _draws(clusters: int, samples: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """How often each cluster is in each resample: uint8 [samples, clusters].

    A count past 255 would overflow, and has probability below 1e-500 for any number of clusters
    but one, which is always drawn once.
    """
    times = np.empty((samples, clusters), dtype=np.uint8)
    for sample in times:
        sample[:] = np.bincount(rng.integers(clusters, size=clusters), minlength=clusters)
    return times
