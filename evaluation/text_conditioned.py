"""Token reduction that knows the query, against merging that doesn't: does it help image search?

    python -m evaluation.text_conditioned

PuMer (arXiv 2305.17530) prunes patches by the text, in models that encode both together. A
bi-encoder has no text when images are encoded, so all that is left is re-ranking: the candidates of
a query are encoded once more, for that query alone. Here the full tower's own candidates are
re-ranked by the full tower with fewer tokens, at equal MACs by orders of patches that know the
query and others that don't (`evaluation.experiment.conditioning`); the report says what the first
gain and what they cost, since none of their embeddings serves another query.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from commands.flags import Bounds, Count, Share, WrittenPath
from commands.inputs import inputs_of
from commands.published import published_command, published_corpus, published_name
from commands.run import main_of
from commands.screen import console, printable
from commands.writing.outputs import finished_directory
from compress.choices import LEAST_IMAGES
from compress.command import run_command
from compress.errors import UserError
from compress.options import SourceOptions
from evaluation.reports.row import FULL_TOWER


@dataclass(frozen=True)
class TextConditionedOptions(SourceOptions):
    """Re-rank with fewer tokens, chosen by the query's text or without it; measure both.

    Example: python -m evaluation.text_conditioned --keep 0.5 0.25 --after 3 6
    """

    samples: Annotated[int, Bounds(LEAST_IMAGES)] = 64
    """calibration images that patches' contributions are predicted from"""
    split: str = "validation"
    """the split to search"""
    images: Count = 300
    """search only the first N images"""
    queries: Count = 100
    """captions to use as queries, drawn by the seed"""
    m: Annotated[int, Bounds(11)] = 50
    """candidates that are re-ranked, more than the 10 that agreement@10 is of"""
    keep: tuple[Share, ...] = (0.5, 0.25)
    """shares of the patches that go on"""
    after: tuple[Count, ...] = ()
    """layers, from 1, after whose attention patches are left out (default: a quarter of them)"""
    output: WrittenPath = Path("results/text-conditioned")
    """directory to write report and table into"""
    overwrite: bool = False
    """replace an earlier result"""

    def check(self) -> None:
        """Raise `UserError` if no share is given."""
        super().check()
        if not self.keep:
            raise UserError("name at least one share of the patches: --keep 0.5")


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(
        main_of("evaluation.text_conditioned"),
        TextConditionedOptions,
        "evaluation.text_conditioned",
    )

import datetime
import random
from collections.abc import Iterator

import torch
from datasets import Dataset

from cascade import Stage
from cascade.searching.ranking import rank_all
from compress.calibrating.calibration import Calibration
from compress.calibrating.device import check_device
from corpora import load_corpus
from evaluation.experiment.conditioning import CutTower, Predictor, orders
from evaluation.experiment.first_stages import refuse_overlap
from evaluation.experiment.quality import Queries, answers_alone
from evaluation.experiment.reranking import Cost, Plan, Reranking, Way, plans, reached
from evaluation.experiment.search import (
    embeddings_of,
    image_batches,
    readable,
    text_embeddings_of,
)
from evaluation.measuring.bootstrap import Bootstrap
from evaluation.measuring.machine import this_machine, versions
from evaluation.reports.record import write_text
from evaluation.reports.text_conditioned import (
    FILE,
    Reranked,
    TextConditioned,
    markdown,
    terminal,
)
from pruning_mechanism import Reduction, load_processor, macs, reduce
from pruning_mechanism.protocols import Processor


def main(options: TextConditionedOptions) -> None:
    """Re-rank, and write report.json and report.md."""
    check_device(options.device)
    with finished_directory(options.output, options.overwrite, inputs_of(options)) as directory:
        report = _measured(options)
        report.save(directory / FILE)
        write_text(directory / "report.md", markdown(report))
    console().print(terminal(report))
    for key in report.skipped:
        console().print(f"skipped, because it can't be read: {printable(key)}")
    console().print(f"wrote {printable(options.output)}", soft_wrap=True)


def _measured(options: TextConditionedOptions) -> TextConditioned:
    """Everything that the report holds; what can be wrong is found before images are encoded."""
    corpus, name = options.corpus, published_corpus(options.corpus)
    tower = Stage.load(options.model, options.device, options.batch_size)
    processor = load_processor(options.model)
    planned = plans(tower.model.config, options.keep, options.after)
    collection, skipped = readable(
        load_corpus(corpus, options.corpus_dir, options.split), options.images
    )
    calibration = Calibration.draw(
        load_corpus(corpus, options.corpus_dir, options.calibration_split, captions=False),
        options.samples, options.seed, processor, None, options.batch_size, options.device,
    )  # fmt: skip
    if len(calibration) < LEAST_IMAGES:
        raise UserError(
            f"{len(calibration)} calibration images of {corpus} can be read: it takes "
            f"{LEAST_IMAGES} at least"
        )
    refuse_overlap(set(calibration.corpus["key"]), set(collection["key"]))
    search = _search(options, collection, tower)
    return TextConditioned(
        model=published_name(options.model),
        corpus=name,
        split=options.split,
        images=len(collection),
        queries=len(search.target),
        captions="all",
        m=(search.candidates.shape[1],),
        command=published_command("evaluation.text_conditioned", options),
        calibration=f"{len(calibration):,} images of {name} ({options.calibration_split})",
        reached=int(reached(search.candidates)[-1]),
        seed=options.seed,
        skipped=skipped,
        rows=tuple(_rows(tower, processor, planned, search, collection, calibration)),
        machine=this_machine(options.device, tower.dtype),
        versions=versions(),
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    )


def _search(options: TextConditionedOptions, collection: Dataset, tower: Stage) -> Reranking:
    """Draw the queries, in an order drawn as well; the full tower's candidates for each."""
    every = Queries.of(collection)
    number = min(options.queries, len(every.texts))
    drawn = random.Random(options.seed).sample(range(len(every.texts)), number)
    texts = text_embeddings_of(tower, [every.texts[place] for place in drawn])
    images, target = embeddings_of(tower, collection, FULL_TOWER), every.target[drawn]
    return Reranking(
        texts,
        target,
        rank_all(images, texts, options.m).positions,
        answers_alone(texts, images, target),
        Bootstrap(target, seed=options.seed),
    )


def _rows(
    tower: Stage,
    processor: Processor,
    planned: list[Plan],
    search: Reranking,
    collection: Dataset,
    calibration: Calibration,
) -> Iterator[Reranked]:
    """The full tower; for each plan merging, the class token's attention, and each order."""

    def once(reduction: Reduction) -> tuple[Cost, torch.Tensor]:
        model = reduce(tower.model, reduction)
        stage = Stage(model, processor, tower.batch_size, tower)
        return Cost(macs(model).tower), search.once(embeddings_of(stage, collection, "reduced"))

    full = Cost(macs(tower.model).tower)
    yield search.row(Way(FULL_TOWER), full, search.full, full)
    for after in dict.fromkeys(plan.after for plan in planned):
        cut = CutTower.of(tower.model, after)
        states = torch.cat(
            [
                cut.states(tower.pixels(images).to(tower.device))
                for images in image_batches(collection, tower.batch_size, f"layer {after}")
            ]
        )
        predictor = Predictor.solve(
            cut,
            (
                cut.states(batch.pixels)
                for batch in calibration.batches("contributions: calibration")
            ),
        )
        ordered = orders(cut, states, predictor, tower.batch_size)
        for plan in (plan for plan in planned if plan.after == after):
            cost, scores = once(plan.merged)
            merged = search.answers(scores)
            yield search.row(Way("merging"), cost, merged, full)
            cost, scores = once(plan.ranked)
            way = Way("attention of class token", after, plan.kept)
            yield search.row(way, cost, search.answers(scores), full, merged)
            for order in ordered:
                way = Way(order.name, after, plan.kept, order.known)
                own = Cost.of(cost.macs, cut, states.shape[1] - 1, order.by_text)
                scores = search.reranked(cut, states, order, plan.kept)
                yield search.row(way, own, search.answers(scores), full, merged)
