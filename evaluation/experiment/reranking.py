"""Re-ranking a full tower's candidates by a tower with fewer tokens: what it finds and costs.

An embedding that no query changes is made once for an image; one that depends on the query serves
that query alone. `evaluation.text_conditioned` compares the two.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from compress.budgets.budgets import MacBudget
from compress.budgets.schedules import schedules
from compress.errors import UserError
from compress.making.reducing import within
from evaluation.experiment.conditioning import CutTower, Order
from evaluation.experiment.quality import AGREEMENT_AT, Answers, result
from evaluation.measuring.bootstrap import Bootstrap
from evaluation.reports.text_conditioned import Reranked
from evaluation.retrieval import overlap, ranks_from_results
from pruning_mechanism import Reduction, Shape, mac_fraction
from pruning_mechanism.families import tower_config
from pruning_mechanism.modeling.token_rules import is_reduced
from pruning_mechanism.protocols import Config


@dataclass(frozen=True)
class Plan:
    """Leaving out all but `kept` patches after layer `after`, and merging at as few MACs."""

    after: int
    kept: int
    ranked: Reduction
    merged: Reduction


def plans(config: Config, keep: Sequence[float], after: Sequence[int]) -> list[Plan]:
    """One for each layer, from 1 (by default a quarter of them), and share of the patches.

    Raises:
        TowerError: the tower has no class token.
        UserError: it leaves out tokens already, has no such layer, or merging can't go so low.
    """
    own = tower_config(config, "vision")
    layers, patches = own.num_hidden_layers, int(Shape.of(config).tokens) - 1
    Reduction().check(config)
    if is_reduced(own):
        raise UserError("--model leaves out tokens or layers already: name the full tower")
    if wrong := [place for place in after if place > layers]:
        raise UserError(f"--after takes layers from 1 to {layers}, found {wrong[0]}")
    merging = [Reduction(merged_per_layer=merged) for merged in schedules(config)]
    found = []
    for place in dict.fromkeys(after or (max(1, layers // 4),)):
        for kept in dict.fromkeys(max(1, round(share * patches)) for share in keep):
            numbers = tuple(kept if layer == place else 0 for layer in range(1, layers + 1))
            ranked = Reduction(ranked_per_layer=numbers, ranker="attention")
            try:
                merged = within(config, merging, MacBudget(mac_fraction(config, ranked)))
            except UserError as error:
                where = f"--keep of {kept} patches after layer {place}"
                raise UserError(f"{where}: merging can't go so low: {error}") from error
            found.append(Plan(place, kept, ranked, merged))
    return found


def reached(candidates: Tensor) -> Tensor:
    """Different images among the candidates [Q, c] of the first 1, …, Q queries: int64 [Q]."""
    seen: set[int] = set()
    counts = []
    for row in candidates.tolist():
        seen.update(row)
        counts.append(len(seen))
    return torch.tensor(counts)


@dataclass(frozen=True)
class Cost:
    """MACs of encoding an image; those `of_query` are spent for each query that brings it up.

    What no query changes is computed once for an image and kept: its embedding, or, where
    something depends on the query, the tokens that this starts from.
    """

    macs: int
    of_query: int = 0

    @classmethod
    def of(cls, macs: int, cut: CutTower, patches: int, by_text: bool) -> "Cost":
        """Of a tower of so many MACs whose patches are ranked by an `Order`, at the cut.

        Ranking takes a vector of each of the `patches`, whatever the query, and its product with
        itself or with the text's embedding.
        """
        products = patches * cut.tower.dimension
        whole = macs + patches * cut.token_macs + products
        return cls(whole, macs - cut.macs_below + products if by_text else 0)

    def spent(self, candidates: Tensor) -> Tensor:
        """MACs that the first 1, …, Q queries take with their candidates [Q, c]: int64 [Q]."""
        pairs = torch.arange(1, len(candidates) + 1) * candidates.shape[1]
        return reached(candidates) * (self.macs - self.of_query) + pairs * self.of_query

    def break_even(self, candidates: Tensor, full: "Cost") -> int | None:
        """The first number of queries that take more MACs than with `full`; None: not within Q."""
        dearer = (self.spent(candidates) > full.spent(candidates)).nonzero()
        return int(dearer[0]) + 1 if len(dearer) else None


@dataclass(frozen=True)
class Way:
    """How candidates are encoded: the order's name, and as in `Reranked`."""

    order: str
    after: int | None = None
    kept: int | None = None
    known: bool = False


@dataclass(frozen=True)
class Reranking:
    """Candidates [Q, c] of queries with text embeddings [Q, e] and own images `target` [Q].

    `full` is what the full tower answers.
    """

    texts: Tensor
    target: Tensor
    candidates: Tensor
    full: Answers
    bootstrap: Bootstrap

    def once(self, images: Tensor) -> Tensor:
        """Scores [Q, c] by embeddings [N, e] that serve all queries."""
        return torch.stack(
            [
                images[at] @ text
                for at, text in zip(self.candidates, self.texts, strict=True)
            ]
        )  # fmt: skip

    def reranked(self, cut: CutTower, states: Tensor, order: Order, keep: int) -> Tensor:
        """Scores [Q, c] by embeddings of states [N, 1 + p, d] of which `keep` patches go on."""
        texts = self.texts.to(states.device)
        if not order.by_text:
            parts = torch.arange(len(states)).split(self.candidates.shape[1])
            ranks = (order.ranks(part, texts[0]) for part in parts)
            images = [
                cut.reduced(states[at], own, keep) for at, own in zip(parts, ranks, strict=True)
            ]
            return self.once(torch.cat(images).cpu())
        pairs = list(zip(self.candidates, texts, strict=True))
        rows = [
            cut.reduced(states[at], order.ranks(at, text), keep) @ text
            for at, text in tqdm(pairs, desc=f"re-rank: {order.name}", unit="query", leave=None)
        ]
        return torch.stack(rows).cpu()

    def answers(self, scores: Tensor) -> Answers:
        """The answers when candidates are ordered by scores [Q, c]."""
        order = scores.argsort(dim=1, descending=True, stable=True)
        results = self.candidates.gather(1, order)
        return Answers(ranks_from_results(results, self.target), results[:, :AGREEMENT_AT])

    def row(
        self, way: Way, cost: Cost, answers: Answers, full: Cost, merged: Answers | None = None
    ) -> Reranked:
        """One row of the report; `merged` are the answers of merging, `full` the full tower's."""
        queries, several = self.candidates.shape
        gain = None
        if merged is not None:
            own, other = (overlap(self.full.top, each.top) for each in (answers, merged))
            gain = self.bootstrap.difference(own, other)
        spent, by_text = int(cost.spent(self.candidates)[-1]), cost.of_query > 0
        return Reranked(
            order=way.order,
            by_text=by_text,
            known=way.known,
            after=way.after,
            kept=way.kept,
            macs=cost.macs,
            macs_of_query=cost.of_query,
            result=result(answers, self.full, self.bootstrap),
            gain=gain,
            encodes=float(several) if by_text else int(reached(self.candidates)[-1]) / queries,
            query_macs=spent / queries,
            break_even=cost.break_even(self.candidates, full),
        )
