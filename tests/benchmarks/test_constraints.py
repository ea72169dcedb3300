"""What a latency constraint is worth: against MAC constraints, at equal measured seconds.

`compress.recover` makes one tower under a latency constraint and several under MAC constraints
around the first one's MACs. All are timed in turn, with the dense tower; agreement@10 of the MAC
towers, drawn as a line over their measured seconds, is read off at those of the latency tower.

    CONSTRAINT_SAMPLES=2048 CONSTRAINT_IMAGES=1000 \\
        pytest tests/benchmarks/test_constraints.py --benchmark-only

Meant for these sizes, on the embedded default or `CONSTRAINT_MODEL` with a `CONSTRAINT_CORPUS_DIR`
(folder); 256 samples and 300 searched images by default. `CONSTRAINT_SAMPLES=16
CONSTRAINT_IMAGES=20 CONSTRAINT_REPETITIONS=1` tries it out.
"""

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from cascade import Stage
from compress import recover
from compress.choices import DEMO_MODEL
from compress.making.make import make
from compress.making.source import Source, open_source
from compress.recover import RecoverOptions
from corpora import load_corpus
from evaluation.experiment.quality import Queries, answers_alone
from evaluation.measuring.clock import seconds_per_image
from evaluation.retrieval import agreement
from pruning_mechanism import macs

SAMPLES = int(os.environ.get("CONSTRAINT_SAMPLES", "256"))
IMAGES = int(os.environ.get("CONSTRAINT_IMAGES", "300"))
REPETITIONS = int(os.environ.get("CONSTRAINT_REPETITIONS", "15"))
MODEL = os.environ.get("CONSTRAINT_MODEL", DEMO_MODEL)
CORPUS_DIR = os.environ.get("CONSTRAINT_CORPUS_DIR")
AROUND = (0.85, 1.0, 1.15)
"""MAC constraints, in shares of the MACs of the tower under the latency constraint."""


@dataclass(frozen=True)
class Searched:
    """Images that no tower was calibrated on, their queries, and the dense tower's top 10."""

    images: list
    queries: Queries
    embedded: torch.Tensor
    top: torch.Tensor

    @classmethod
    def by(cls, stage: Stage, corpus) -> "Searched":
        queries = Queries.of(corpus)
        embedded = stage.encode_texts(queries.texts)
        images = corpus["image"][:]
        answers = answers_alone(embedded, stage.encode_images(images), queries.target)
        return cls(images, queries, embedded, answers.top)

    def agreement(self, stage: Stage) -> float:
        found = answers_alone(self.embedded, stage.encode_images(self.images), self.queries.target)
        return agreement(self.top, found.top)


@pytest.fixture(scope="module")
def corpus() -> dict[str, object]:
    return {"corpus": "folder", "corpus_dir": Path(CORPUS_DIR)} if CORPUS_DIR else {}


@pytest.fixture(scope="module")
def base(corpus) -> Source:
    options = RecoverOptions(model=MODEL, samples=SAMPLES, **corpus)
    return open_source(options.checkpoints, options.sampling, recover.rule(options).needs)


@pytest.fixture(scope="module")
def searched(base, corpus) -> Searched:
    split = load_corpus(corpus.get("corpus", "scenes"), corpus.get("corpus_dir"), "validation")
    return Searched.by(Stage(base.model, base.processor), split.select(range(IMAGES)))


def recovered(base: Source, corpus: dict, **constraint) -> list:
    options = RecoverOptions(model=MODEL, samples=SAMPLES, **corpus, **constraint)
    rule = recover.rule(options)
    made = [make(base, rule, setting, options.finish) for setting in rule.settings]
    return [each.model.float() for each in made]


@pytest.mark.parametrize("share", [0.75, 0.5, 0.35])
def test_latency_against_mac_constraints_at_equal_seconds(benchmark, base, corpus, searched, share):
    (by_latency,) = recovered(base, corpus, latency_constraint=(share,))
    fraction = macs(by_latency).fraction
    constraints = tuple(min(1.0, round(fraction * each, 4)) for each in AROUND)
    by_macs = recovered(base, corpus, mac_constraint=constraints)
    stages = [Stage(each, base.processor) for each in (base.model, by_latency, *by_macs)]
    _dense, own, *others = stages
    pixels = own.pixels(searched.images[: own.batch_size])
    works = {place: partial(stage.encode_pixels, pixels) for place, stage in enumerate(stages)}
    clock = seconds_per_image(works, len(pixels), REPETITIONS)
    seconds = [clock[place].median for place in range(len(stages))]
    benchmark.pedantic(own.encode_pixels, (pixels,), rounds=REPETITIONS, iterations=1)

    found = sorted(
        (taken, searched.agreement(each)) for taken, each in zip(seconds[2:], others, strict=True)
    )
    reached = searched.agreement(own)
    at_equal_seconds = float(np.interp(seconds[1], *zip(*found, strict=True)))
    benchmark.extra_info |= {
        "threads": torch.get_num_threads(),
        "samples": SAMPLES,
        "images": IMAGES,
        "latency_constraint": share,
        "measured_share": round(seconds[1] / seconds[0], 3),
        "mac_fraction": round(fraction, 3),
        "agreement_of_latency": round(reached, 2),
        "agreement_of_macs_at_equal_seconds": round(at_equal_seconds, 2),
        "within_the_line": found[0][0] <= seconds[1] <= found[-1][0],
        "gain": round(reached - at_equal_seconds, 2),
        "ms_and_agreement_of_macs": [
            (round(1000 * taken, 3), round(agreed, 2)) for taken, agreed in found
        ],
    }
