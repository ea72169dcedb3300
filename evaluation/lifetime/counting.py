"""From a cascade and streams of queries to what its last stage encodes: the measurement.

Which images a query hands on is asked of the cascade itself; a stream only says which query comes
when, so that no image needs to be encoded for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from cascade.calibrated.calibration import Candidates
from cascade.cascade import Cascade
from cascade.measuring.finding import best_of_sample
from evaluation.lifetime.reliability import calibration_error, reliability
from evaluation.lifetime.zipf import Numbers, brought_up, zipf_stream
from evaluation.planning.sample import Sample
from evaluation.reports.stream import Curve

_POINTS_A_DECADE = 8


@dataclass(frozen=True)
class Streams:
    """Streams of queries.

    Attributes:
        drawn: of each stream, which text each query is.
        after: numbers of queries after which it is counted.
    """

    drawn: Sequence[Numbers]
    after: tuple[int, ...]

    @classmethod
    def drawn_from(cls, drawn: Sequence[Numbers]) -> "Streams":
        """Streams of one length, counted at equal steps of its logarithm."""
        largest = len(drawn[0])
        points = 1 + round(_POINTS_A_DECADE * np.log10(largest))
        steps = np.geomspace(1, largest, points).round().astype(int)
        return cls(drawn, tuple(np.unique(steps).tolist()))

    @classmethod
    def of(cls, texts: int, queries: int, exponent: float, streams: int, seed: int) -> "Streams":
        """Zipf streams, each with a seed of its own."""
        seeds = range(seed, seed + streams)
        return cls.drawn_from([zipf_stream(texts, queries, exponent, each) for each in seeds])


def measured_curve(
    cascade: Cascade,
    queries: Sequence[Tensor],
    streams: Streams,
    name: str,
    k: int,
    sample: Sample | None,
) -> Curve:
    """What one way to choose m costs and finds.

    Args:
        cascade: what is searched.
        queries: the embeddings of all texts for each stage, float32 [Q, d].
        streams: which of them come when.
        name: "fixed", as the cascade has m, or "auto".
        k: results of a query.
        sample: all images, if the full tower has encoded all; None: agreement isn't measured.
    """
    m: Candidates = "auto" if name == "auto" else cascade.m
    handed_on = [each.numpy() for each in cascade.handed_on(queries[0], k, m)]
    places = cascade.catalogue.contents.rows.count
    encoded = [brought_up(stream, handed_on, places, streams.after) for stream in streams.drawn]
    asked = np.concatenate(list(streams.drawn))
    candidates = np.array([len(each) for each in handed_on])
    curve = Curve(
        name=name,
        m=float(candidates[asked].mean()),
        agreement=None,
        encoded=tuple(map(tuple, encoded)),
    )
    if sample is None:
        return curve
    best = best_of_sample(sample.embeddings, sample.positions, queries[1], k, None).positions
    keys = sample.contents.keys
    agreements, stated, happened = [], [], []
    hits = cascade.search_embeddings(queries, k, m=m)
    for found, positions in zip(hits, best[:, :k].tolist(), strict=True):
        wanted = {keys[position] for position in positions}
        inside = [hit.key in wanted for hit in found]
        agreements.append(sum(inside) / k)
        stated += [hit.probability for hit in found]
        happened += inside
    known = [chance for chance in stated if chance is not None]
    bins = reliability(known, happened) if len(known) == len(happened) else ()
    return Curve(
        name=name,
        m=curve.m,
        agreement=float(np.array(agreements)[asked].mean()),
        encoded=curve.encoded,
        reliability=bins,
        calibration_error=calibration_error(bins) if bins else None,
    )
