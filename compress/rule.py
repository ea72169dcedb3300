"""What every pruning rule does around its own choice: load, draw, choose, repair, cut, save.

A rule gives a mask; `compress` makes a smaller tower out of it and says how it came about, and
`write` keeps it as a checkpoint. `run_rule` is the command around both.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from datasets import Dataset
from rich.table import Table
from torch import nn

from compress.calibration import Calibration
from compress.command import ConfigOption, UserError, check_device, console, finished_directory
from compress.repair import Repair, SublayerRepair, repair_tower
from corpora import load_corpus
from pruning_mechanism import (
    Compression,
    Mask,
    TowerError,
    is_pruned,
    load,
    load_processor,
    macs,
    parameters,
    prune,
    save,
)
from pruning_mechanism.checkpoint import fingerprint, stored_dtype

CALIBRATION_KEYS = "calibration.txt"
DEMO_MODEL = str(Path(__file__).resolve().parent.parent / "demo" / "clip-scenes")


@dataclass(frozen=True)
class BaseOptions(ConfigOption):
    """Which tower to make smaller, and what to calibrate it on."""

    model: str = DEMO_MODEL
    """directory or hub name of a CLIP, or of its vision tower alone"""
    text_model: str | None = None
    """a whole CLIP, if --model is a vision tower alone"""
    corpus: str = "scenes"
    """scenes, coco, flickr30k, flickr8k, folder, or hub:OWNER/NAME"""
    corpus_dir: Path | None = None
    """where the corpus lies"""
    calibration_split: str = "train"
    """split that the calibration images are drawn from"""
    samples: int = 2048
    """calibration images for the scores"""
    repair: Repair = "rescale"
    """what is done to the weights that stay"""
    repair_samples: int = 512
    """calibration images for the repair, the first of the samples"""
    batch_size: int = 32
    """images a batch"""
    seed: int = 0
    """of the draw of calibration images and captions"""
    device: str = "cpu"
    """where to compute: cpu, cuda, mps"""


@dataclass(frozen=True)
class RuleOptions(BaseOptions):
    """What every pruning command takes."""

    output: Path | None = None
    """directory to write (default: results/RULE-CONSTRAINT)"""
    overwrite: bool = False
    """replace an earlier result"""


@dataclass(frozen=True)
class Base:
    """A tower to be made smaller, with what is needed to score, repair and save it."""

    path: str
    model: nn.Module
    texts: nn.Module
    processor: object
    calibration: Calibration


@dataclass(frozen=True)
class Smaller:
    """A smaller tower in memory, with how it was made."""

    model: nn.Module
    mask: Mask
    compression: Compression
    repairs: list[SublayerRepair] = field(default_factory=list)


def open_base(options: BaseOptions) -> Base:
    """Load the tower and draw the calibration images, having checked what can be checked first.

    Raises:
        UserError, TowerError, CorpusError: an option names something that can't be used.
    """
    for name in ("samples", "repair_samples", "batch_size"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1")
    check_device(options.device)
    model = load(options.model, options.device)
    if is_pruned(model):
        raise TowerError(f"{options.model} is pruned already: name the dense checkpoint")
    processor = load_processor(options.model)
    texts, tokenizer = model, getattr(processor, "tokenizer", None)
    if options.text_model:
        texts = load(options.text_model, options.device)
        tokenizer = getattr(load_processor(options.text_model), "tokenizer", None)
    if not hasattr(texts, "text_model") or tokenizer is None:
        raise UserError(
            f"{options.text_model or options.model} has no text tower, or no tokenizer for it: "
            "pass a whole CLIP that it belongs to as --text-model"
        )
    corpus = load_corpus(options.corpus, options.corpus_dir, options.calibration_split)
    calibration = Calibration.draw(
        corpus, options.samples, options.seed, processor, tokenizer, options.batch_size,
        options.device,
    )  # fmt: skip
    if len(calibration) < 2:
        raise UserError(f"{options.corpus} has {len(calibration)} readable images: too few")
    return Base(options.model, model, texts, processor, calibration)


def calibrate(
    model: nn.Module, corpus: Dataset | Calibration, samples: int, seed: int
) -> Calibration:
    """The calibration sample that `corpus` is, or one drawn from it for `model`."""
    if isinstance(corpus, Calibration):
        return corpus
    processor = load_processor(model.config._name_or_path)
    return Calibration.draw(corpus, samples, seed, processor, device=str(model.device))


def compress(
    base: Base,
    mask: Mask,
    rule: str,
    constraint: str,
    options: BaseOptions,
    seconds: float = 0.0,
) -> Smaller:
    """Cut `mask` out of the base tower and repair what stays.

    Args:
        base: the tower; it stays as it is.
        mask: what to keep.
        rule: the rule's name, for the record.
        constraint: what it was asked for, for the record and for people.
        options: how to repair.
        seconds: what finding the mask took; the repair's own are added.
    """
    start = time.perf_counter()
    model = prune(base.model, mask)
    calibration = base.calibration.first(options.repair_samples)
    repairs = (
        repair_tower(base.model, model, calibration, options.repair, f"{rule} {constraint}: repair")
        if options.repair != "none"
        else []
    )
    model = model.to(stored_dtype(base.path))
    cost = macs(model)
    compression = Compression(
        rule=rule,
        constraint=constraint,
        repair=options.repair,
        base=base.path,
        base_fingerprint=fingerprint(base.path, base.model),
        corpus=f"{options.corpus} {options.calibration_split}",
        samples=len(base.calibration),
        seed=options.seed,
        macs=cost.encoder,
        mac_fraction=cost.fraction,
        tower_macs=cost.tower,
        parameters=parameters(model),
        seconds=seconds + time.perf_counter() - start,
        notes=tuple(repair.problem for repair in repairs if repair.problem),
        unreadable_images=base.calibration.unreadable,
        settings={each.name: str(getattr(options, each.name)) for each in fields(options)},
    )
    return Smaller(model, mask, compression, repairs)


def write(smaller: Smaller, base: Base, directory: Path) -> None:
    """Write a smaller tower, its mask, its record and what it has seen into a directory."""
    save(smaller.model, directory, base.processor, smaller.compression)
    smaller.mask.save(directory / "mask.safetensors")
    keys = "".join(f"{key}\n" for key in base.calibration.corpus["key"])
    (directory / CALIBRATION_KEYS).write_text(keys)
    repairs = [asdict(repair) for repair in smaller.repairs]
    (directory / "repair.json").write_text(json.dumps(repairs, indent=1, allow_nan=False) + "\n")


def run_rule(
    rule: str,
    constraint: str,
    options: RuleOptions,
    choose: Callable[[nn.Module, Calibration, nn.Module], Mask],
) -> None:
    """The command of a pruning rule: `choose` gives the mask for (model, calibration, texts)."""
    output = options.output or Path("results") / f"{rule}-{constraint.replace(' ', '-').lower()}"
    with finished_directory(output, options.overwrite) as directory:
        base = open_base(options)
        start = time.perf_counter()
        mask = choose(base.model, base.calibration, base.texts)
        smaller = compress(
            base, mask, rule, constraint, options, seconds=time.perf_counter() - start
        )
        write(smaller, base, directory)
    for note in smaller.compression.notes:
        console().print(f"note: {note}")
    if smaller.compression.unreadable_images:
        names = ", ".join(smaller.compression.unreadable_images)
        console().print(f"skipped, because they can't be read: {names}")
    console().print(_summary(base, smaller))
    console().print(f"wrote {output}", soft_wrap=True)


def _summary(base: Base, smaller: Smaller) -> Table:
    """The short table that a rule's command ends with."""
    table = Table(title=f"{smaller.compression.rule}, {smaller.compression.constraint}")
    for heading in ("", "heads", "neurons", "GMACs", "share", "parameters"):
        table.add_column(heading, justify="right")
    dense = Mask.dense(base.model.config)
    rows = (("dense", base.model, dense), ("smaller", smaller.model, smaller.mask))
    for name, model, mask in rows:
        cost = macs(model)
        table.add_row(
            name,
            f"{int(mask.heads.sum()):,}",
            f"{int(mask.neurons.sum()):,}",
            f"{cost.encoder / 1e9:.3f}",
            f"{cost.fraction:.3f}",
            f"{parameters(model):,}",
        )
    return table
