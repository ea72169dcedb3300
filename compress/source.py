"""The first stage that a rule makes cheaper, dense or smaller already, and the tower it stands for.

Stands before every rule that leaves out tokens or layers: opens the checkpoint, and the last stage
whose embeddings it is aligned to, and draws the calibration images.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from compress.alignment import LEAST_IMAGES, too_few
from compress.calibration import Calibration
from compress.command import UserError, check_device
from compress.dense import Base, Ledger
from compress.options import AlignOptions
from compress.smaller import CALIBRATION_KEYS
from corpora import load_corpus
from pruning_mechanism import Tower, load, load_processor
from pruning_mechanism.checkpoint import fingerprint


@dataclass(frozen=True)
class Source:
    """A first stage to be made cheaper.

    `target` is the vision tower that it stands in front of, `target_processor` prepares that one's
    images. `chain` says what has been done to it before, `seen` which images that was calibrated
    on.
    """

    path: str
    model: nn.Module
    processor: object
    target: Tower
    target_processor: object
    calibration: Calibration
    ledger: Ledger
    base: str
    base_fingerprint: str
    chain: tuple[str, ...] = ()
    seen: tuple[str, ...] = ()

    @classmethod
    def of(cls, base: Base) -> "Source":
        """The dense checkpoint of an experiment, which is its own target."""
        own = base.model, base.processor
        return cls(
            base.path, *own, Tower.of(own[0]), own[1], base.calibration, base.ledger, base.path,
            fingerprint(base.path, base.model),
        )  # fmt: skip

    def targets(self) -> Tensor:
        """The target's embeddings of the calibration images, float32 [n, e], computed once."""
        return self.ledger.once("targets", self._targets)

    @torch.no_grad()
    def _targets(self) -> Tensor:
        images = replace(self.calibration, processor=self.target_processor)
        batches = images.batches("last stage")
        return torch.cat([self.target.embeddings(each.pixels).float().cpu() for each in batches])


def open_source(options: AlignOptions) -> Source:
    """Load a first stage and its target, and draw the calibration images.

    Raises:
        UserError, TowerError, CorpusError: an option names something that can't be used.
    """
    for name in ("samples", "batch_size"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1")
    aligns = options.align == "ridge"
    if aligns and options.samples < LEAST_IMAGES:
        raise too_few(options.samples)
    if options.align_features is not None and options.align_features < 0:
        raise UserError("--align-features must be at least 0")
    check_device(options.device)
    model, processor = load(options.model, options.device), load_processor(options.model)
    record = _record(options.model)
    base = record.get("base", options.model)
    target, target_processor = model, processor
    if (last := options.target or base) != options.model:
        target, target_processor = _target(last, options), load_processor(last)
    corpus = load_corpus(
        options.corpus, options.corpus_dir, options.calibration_split, captions=False
    )
    calibration = Calibration.draw(
        corpus, options.samples, options.seed, processor, None, options.batch_size, options.device
    )
    if not len(calibration):
        raise UserError(f"{options.corpus} has no readable image")
    if aligns and len(calibration) < LEAST_IMAGES:
        raise too_few(len(calibration))
    chain = record.get("chain") or ([f"{record['rule']} {record['constraint']}"] if record else [])
    keys = Path(options.model) / CALIBRATION_KEYS
    seen = keys.read_text().splitlines() if keys.is_file() else []
    return Source(
        options.model, model, processor, Tower.of(target), target_processor, calibration,
        Ledger(), base, record.get("base_fingerprint") or fingerprint(options.model, model),
        tuple(chain), tuple(seen),
    )  # fmt: skip


def _record(path: str) -> dict:
    """How a checkpoint was made, by its compression.json; empty if it is none of ours."""
    record = Path(path) / "compression.json"
    return json.loads(record.read_text()) if record.is_file() else {}


def _target(path: str, options: AlignOptions) -> nn.Module:
    if not options.target and not Path(path).exists() and path.startswith((".", "/")):
        raise UserError(
            f"{options.model} was made from {path}, which isn't there any more: name the last "
            "stage as --target"
        )
    return load(path, options.device)
