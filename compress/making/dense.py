"""The dense checkpoint that a rule makes smaller, with what is found out about its towers once.

Stands before every rule: opens the checkpoint and draws the calibration sample, having checked what
can be checked before the work starts.
"""

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import TypeVar

from torch import nn

from compress.calibrating.calibration import Calibration, Tokeniser, tokeniser_of
from compress.calibrating.device import check_device
from compress.calibrating.token_weights import TokenWeights, token_weights
from compress.errors import UserError
from compress.making.checkpoints import remember
from compress.making.options import BaseOptions
from compress.solving.moments import Moments, dense_moments
from corpora import load_corpus
from pruning_mechanism import (
    Tower,
    TowerError,
    TowerKind,
    check_belongs,
    is_pruned,
    load,
    load_processor,
)
from pruning_mechanism.checkpoints.checkpoint import fingerprint

WEIGHT_SAMPLES = 256
"""Calibration images that token weights are averaged over."""

Value = TypeVar("Value")


@dataclass
class Ledger:
    """What is made once and needed by several results, and the seconds that each is charged.

    `open_bill` and `bill` charge each result in full for all that it needed, and for nothing twice.
    """

    _made: dict[Hashable, tuple[object, dict[Hashable, float]]] = field(default_factory=dict)
    _needed: dict[Hashable, float] = field(default_factory=dict)
    _making: float = 0.0
    _opened: float = 0.0

    def once(self, name: Hashable, make: Callable[[], Value]) -> Value:
        """What `make` gives, made at the first call under this name."""
        if name not in self._made:
            needed, self._needed = self._needed, {}
            start, before = time.perf_counter(), self._making
            value = make()
            seconds = time.perf_counter() - start
            own = seconds - (self._making - before)  # without what was made for it
            self._made[name] = value, self._needed | {name: own}
            self._needed, self._making = needed, before + seconds
        value, seconds_of = self._made[name]
        self._needed |= seconds_of
        return value

    def open_bill(self) -> None:
        """Count from here on what a result takes."""
        self._needed, self._opened = {}, time.perf_counter() - self._making

    def bill(self) -> float:
        """Seconds since the bill was opened; what was made before counts as if made now."""
        return time.perf_counter() - self._making - self._opened + sum(self._needed.values())


@dataclass(frozen=True)
class DenseTower:
    """A tower to be made smaller, with what is needed to score and repair it.

    `texts` is the CLIP whose other tower gives the fixed side of a contrastive loss.
    """

    tower: Tower
    texts: nn.Module | None
    calibration: Calibration
    ledger: Ledger = field(default_factory=Ledger)

    @property
    def model(self) -> nn.Module:
        """The model that the tower is one of."""
        return self.tower.model

    @property
    def kind(self) -> TowerKind:
        """Which of the model's towers it is."""
        return self.tower.kind

    def once(self, name: Hashable, make: Callable[[], Value]) -> Value:
        """What `make` gives, made at the first call under this name for this tower."""
        return self.ledger.once((self.kind, name), make)

    def weights(self) -> list[TokenWeights]:
        """What each token after each sublayer matters to the embedding."""
        few = self.calibration.first(WEIGHT_SAMPLES)
        return self.once("token weights", lambda: token_weights(self.tower, few))

    def moments(self) -> list[Moments]:
        """Second moments of the dense sublayers, tokens weighted."""

        def sum_up() -> list[Moments]:
            return dense_moments(self.tower, self.calibration.batches("moments"), self.weights())

        return self.once("moments", sum_up)


@dataclass(frozen=True)
class Base:
    """A checkpoint and those of its towers that are to be made smaller."""

    path: str
    model: nn.Module
    processor: object
    calibration: Calibration
    towers: tuple[DenseTower, ...]
    ledger: Ledger


def open_base(options: BaseOptions, captions: bool) -> Base:
    """Load the towers and draw the calibration images, having checked what can be checked first.

    Args:
        options: which towers and corpus.
        captions: whether the rule needs captions and the other tower; a text tower needs captions
            in any case.

    Raises:
        UserError, TowerError, CorpusError: an option names something that can't be used.
    """
    check_device(options.device)
    model = load(options.model, options.device)
    towers = [Tower.of(model, kind) for kind in options.towers]
    for tower in towers:
        if is_pruned(model, tower.kind):
            raise TowerError(
                f"{options.model}: its {tower.kind} tower is pruned already: name the dense "
                "checkpoint"
            )
    check_text_model(options.text_model, model, options.model)
    remember(fingerprint(options.model, model), options.model)
    processor = load_processor(options.model)
    check_belongs(processor, model, texts=captions or "text" in options.towers)
    captions = captions or "text" in options.towers
    texts, tokeniser = _text_tower(options, model, processor) if captions else (None, None)
    corpus = load_corpus(
        options.corpus, options.corpus_dir, options.calibration_split, captions=captions
    )
    calibration = Calibration.draw(
        corpus, options.samples, options.seed, processor, tokeniser, options.batch_size,
        options.device,
    )  # fmt: skip
    if len(calibration) < 2:
        raise UserError(f"{options.corpus} has {len(calibration)} readable images: too few")
    ledger = Ledger()
    dense = tuple(DenseTower(tower, texts, calibration, ledger) for tower in towers)
    return Base(options.model, model, processor, calibration, dense, ledger)


def check_text_model(text_model: str | None, model: nn.Module, path: str) -> None:
    """Raise `UserError` if a text tower is named for a model at `path` that has its own."""
    if text_model and hasattr(model, "text_model"):
        raise UserError(
            f"--text-model is for a vision tower alone, but {path} has a text tower of its own: "
            "leave out --text-model"
        )


def _text_tower(
    options: BaseOptions, model: nn.Module, processor: object
) -> tuple[nn.Module, Tokeniser]:
    """The CLIP whose text tower embeds the captions, and its tokeniser."""
    texts = model
    if options.text_model:
        texts, processor = (
            load(options.text_model, options.device),
            load_processor(options.text_model),
        )
        check_belongs(processor, texts)
    tokeniser = tokeniser_of(texts, processor)
    if problem := getattr(processor, "problem", None):
        raise UserError(problem)
    if tokeniser is None:
        raise UserError(
            f"{options.text_model or options.model} has no text tower, or no tokenizer for it: "
            "pass a whole CLIP that it belongs to as --text-model"
        )
    return texts, tokeniser
