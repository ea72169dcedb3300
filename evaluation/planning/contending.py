"""Several first stages before one full tower: what each finds and costs, and which is cheapest.

The collection's own first stage has embedded all N images. Another one embeds the S images that the
full tower has seen, and ranks these: an image that is r-th of them counts as found from
m = ⌈r·N/S⌉ candidates of all on, as many as are before it on average. If the sample is all images,
that is exact.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cascade.collecting.rounding import rounded
from cascade.collection import Collection
from cascade.cost import lifetime_speedup
from cascade.measuring.finding import NEVER, Found, best_of_sample, first_ranking, found_at
from cascade.measuring.sampling import results_of_sample
from cascade.searching.embeddings import Rows
from cascade.searching.encoding import Encoded, encode_each
from cascade.stages.stage import Encoder
from evaluation.measuring.values import Running
from evaluation.planning.asking import Asked
from evaluation.planning.certifying import confidence_of_each, lower_bound, smallest_m_of_each
from evaluation.planning.costs import BYTES, Costs
from evaluation.planning.measuring import Measured, reported
from evaluation.planning.sample import Sample
from evaluation.planning.terms import PlanError, Terms


@dataclass(frozen=True)
class Contender:
    """A first stage that a collection could have.

    Attributes:
        name: its checkpoint, as it was named.
        encoder: it.
    """

    name: str
    encoder: Encoder


@dataclass(frozen=True)
class Ranked:
    """What a first stage ranks for the queries of a plan.

    Attributes:
        name: of the stage.
        found: from which m on, of all images, each query's results are found.
        candidates: int64 [n, c], its ranking of those images that it has embedded.
        embedded: how many these are.
        images: of the collection.
        dimension: of its embeddings.
    """

    name: str
    found: Found
    candidates: Tensor
    embedded: int
    images: int
    dimension: int

    @property
    def largest(self) -> int:
        """The largest m that it says anything about."""
        return self.candidates.shape[1] * self.images // self.embedded

    def share(self, m: int, queries: int) -> float:
        """f: the share of its images that m candidates of all bring up, for the first queries."""
        columns = -(-m * self.embedded // self.images)
        return len(self.candidates[:queries, :columns].unique()) / self.embedded


@dataclass(frozen=True)
class Choice:
    """What a first stage finds and costs at the m that is certified for it.

    Attributes:
        name: of the stage.
        m: candidates; None: none is certified, and the rest is of the largest.
        agreement: mean over the queries.
        bound: what it is at least, with the confidence that this stage needs.
        shares: f after some queries, and after all.
        seconds: of the first stage, per image, from its file.
        last: of the full tower, per image, from its file.
        nbytes: of its embedding on disk.
        last_nbytes: of the full tower's.
        encoder: seconds of the first stage's encoder alone; None: not measured.
        last_encoder: of the full tower's.
        running: how the first stage runs; None: it doesn't say.
    """

    name: str
    m: int | None
    agreement: float
    bound: float
    shares: Sequence[float]
    seconds: float
    last: float
    nbytes: int
    last_nbytes: int
    encoder: float | None = None
    last_encoder: float | None = None
    running: Running | None = None

    @property
    def lifetime(self) -> float:
        """Seconds per image over the lifetime: t_1 + f · t_last, f after all queries."""
        return self.seconds + self.shares[-1] * self.last

    @property
    def speedup(self) -> float:
        """Lifetime speedup at that f."""
        return lifetime_speedup((self.seconds, self.last), self.shares[-1])

    @property
    def encoder_speedup(self) -> float | None:
        """The same of encoder-only seconds; None: not measured."""
        if self.encoder is None or self.last_encoder is None:
            return None
        return lifetime_speedup((self.encoder, self.last_encoder), self.shares[-1])

    @property
    def disk(self) -> float:
        """Bytes per image on disk, f of them with an embedding of the full tower."""
        return self.nbytes + self.shares[-1] * self.last_nbytes


def own_ranking(name: str, found: Measured, sample: Sample) -> Ranked:
    """The collection's own first stage, which has embedded all images."""
    images, dimension = len(sample.contents), sample.contents.rows.embeddings.shape[1]
    return Ranked(name, found.found, found.candidates, images, images, dimension)


def ranking_of(
    contender: Contender,
    collection: Collection,
    sample: Sample,
    asked: Asked,
    terms: Terms,
    batch_size: int = 32,
    progress: Callable[[int], object] | None = None,
) -> Ranked:
    """Let another first stage embed the sample, and look for the full tower's best in its ranking.

    Args:
        contender: the stage.
        collection: the sample's.
        sample: what the full tower has encoded.
        asked: the queries.
        terms: of the plan; as many candidates are looked at as its largest m comes to.
        batch_size: images that it is given at once.
        progress: told after each batch how many images were looked at.

    Raises:
        PlanError: it can read no more than one image of the sample.
        ValueError: there are fewer than k images to find.
    """
    made, places = _embedded(contender.encoder, collection, sample, batch_size, progress)
    if len(places) <= 1:
        raise PlanError(f"{contender.name} can read only {len(places)} of the sampled images")
    own = asked.own
    wanted = results_of_sample(
        terms.k, len(sample.positions) - (own is not None), sample.images - (own is not None)
    )
    best = best_of_sample(sample.embeddings, sample.positions, asked.embeddings[1], wanted, own)
    queries, kept = _queries(contender.encoder, collection, sample, asked, made, places)
    columns = min(len(places), -(-terms.largest * len(places) // sample.images))
    none, rows = torch.empty(0, dtype=torch.int64), Rows.none().with_more(made)
    ranking = first_ranking(rows, queries, columns, none, kept).positions
    candidates = sample.positions[places][ranking]
    complete = best.positions.shape[1] == len(sample.positions) - (own is not None)
    at = found_at(candidates, best, wanted, complete).at
    scaled = -(-at.clip(max=len(places)) * sample.images // len(places))
    scaled[at == NEVER] = NEVER
    return Ranked(
        contender.name, Found(scaled), candidates, len(places), sample.images, made.shape[1]
    )


def choices(ranked: Sequence[Ranked], costs: Costs, precision: str, terms: Terms) -> list[Choice]:
    """What each first stage finds and costs at its own m; all m are certified at once.

    Args:
        ranked: the collection's own first stage, then the others.
        costs: measured, of as many stages.
        precision: what embeddings are kept in.
        terms: of the plan.

    Raises:
        PlanError: no image could be opened to take the time with.
    """
    if costs.seconds is None:
        raise PlanError("no sampled image can be opened any more to time the stages with")
    ranges = [(min(terms.k, each.largest), min(terms.largest, each.largest)) for each in ranked]
    founds = [each.found for each in ranked]
    certified = smallest_m_of_each(founds, terms.agreement, terms.confidence, ranges, terms.p_value)
    sure = confidence_of_each(terms.confidence, len(ranked))
    first, last = costs.seconds
    own_encoder, last_encoder = costs.encoders or (None, None)
    others: Sequence[float | None] = [*costs.other_encoders] or [None] * len(costs.others)
    own_running, _, *running = costs.running or [None] * (2 + len(costs.others))
    stages = zip(
        [first, *costs.others], [own_encoder, *others], [own_running, *running], strict=True
    )
    made = []
    for each, m, (_, largest), (seconds, encoder, runs) in zip(
        ranked, certified, ranges, stages, strict=True
    ):
        shown = largest if m is None else m
        agreements = each.found.agreements(shown)
        made.append(
            Choice(
                name=each.name,
                m=m,
                agreement=float(agreements.mean()),
                bound=lower_bound(agreements, sure, terms.p_value),
                shares=[each.share(shown, number) for number in reported(len(agreements))],
                seconds=seconds,
                last=last,
                nbytes=each.dimension * BYTES[precision],
                last_nbytes=costs.nbytes,
                encoder=encoder,
                last_encoder=last_encoder,
                running=runs,
            )
        )
    return made


def cheapest(made: Sequence[Choice]) -> Choice | None:
    """The certified one of least seconds per image over the lifetime; None: none is certified."""
    certified = [choice for choice in made if choice.m is not None]
    return min(certified, key=lambda choice: choice.lifetime, default=None)


def _embedded(
    encoder: Encoder,
    collection: Collection,
    sample: Sample,
    batch_size: int,
    progress: Callable[[int], object] | None,
) -> tuple[Tensor, Tensor]:
    """Embeddings float32 [s, d] as they would be kept, and which of the sample's images they are.

    What it can't read is left out: then no m finds that image.
    """
    (kept_as,) = rounded([encoder], collection.record.precision)
    made: list[Tensor] = []
    places: list[int] = []
    for batch in torch.arange(len(sample.positions)).split(batch_size):
        sources = [sample.contents.source(at) for at in sample.positions[batch].tolist()]
        outcomes = encode_each(lambda some: (kept_as.encode_images(some), None), sources, None, 0)
        for place, outcome in zip(batch.tolist(), outcomes, strict=True):
            if isinstance(outcome, Encoded):
                made.append(outcome.embedding)
                places.append(place)
        if progress is not None:
            progress(len(batch))
    return torch.stack(made) if made else torch.zeros(0, 0), torch.tensor(places)


def _queries(
    encoder: Encoder,
    collection: Collection,
    sample: Sample,
    asked: Asked,
    made: Tensor,
    places: Tensor,
) -> tuple[Tensor, Tensor | None]:
    """The queries as this stage embeds them, and which of its images each is, if they are images.

    -1 stands where it could not read that image: its query is the full tower's then.
    """
    for stage, embedded in zip(
        reversed(collection.stages), reversed(asked.embeddings), strict=True
    ):
        if stage.text_name == encoder.text_name and asked.own is None:
            return embedded, None
    if asked.own is None:
        return encoder.encode_texts(list(asked.texts or ())), None
    own = torch.searchsorted(sample.positions, asked.own)
    slots = torch.full((len(sample.positions),), -1)
    slots[places] = torch.arange(len(places))
    kept = slots[own]
    if encoder.text_name == collection.stages[-1].text_name:
        return asked.embeddings[1], kept
    if (kept < 0).any():
        raise PlanError("a sampled image that is a query can't be read by every first stage")
    return made[kept], kept
