"""The latency table of models of any families: parameters, milliseconds, score.

    python -m evaluation.latency

Parameters, milliseconds of an image and of a text, and what a model finds or classifies right, as
MobileCLIP's table has them (arXiv 2311.17049). Beside `evaluation.cascade`, which measures first
stages in front of a full tower; `figures.latency` draws the report.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from commands.flags import (
    Checkpoint,
    ConfigOption,
    Count,
    ReadPath,
    Reads,
    Seed,
    Unread,
    WrittenPath,
)
from commands.inputs import inputs_of
from commands.published import published_command, published_corpus
from commands.run import main_of
from commands.screen import console, printable
from commands.writing.outputs import finished_directory
from compress.choices import DEMO_FIRST_STAGE, DEMO_MODEL
from compress.command import run_command
from compress.errors import UserError
from evaluation.options import places_of, refuse_named_classes


@dataclass(frozen=True)
class LatencyOptions(ConfigOption):
    """Put models into a latency table: parameters, milliseconds of images and texts, a score.

    Example: python -m evaluation.latency --models A B C --batch 1 32 --score retrieval
    """

    models: tuple[Checkpoint, ...] = (DEMO_MODEL, DEMO_FIRST_STAGE)
    """directories, hub names or open_clip:NAMEs of whole CLIPs or vision towers alone"""
    full: Checkpoint | None = None
    """whole CLIP that lends vision towers its text tower (default: of --models, the one that each
    was made from)"""
    batch: tuple[Count, ...] = (1, 32)
    """images, or texts, that are embedded at once"""
    score: Literal["retrieval", "zero-shot", "none"] = "retrieval"
    """beside the times: Recall@1 of a text-to-image search, top-1 of classification, nothing"""
    corpus: str = "scenes"
    """to search: scenes, coco, flickr30k, flickr8k, folder, or hub:OWNER/NAME"""
    corpus_dir: ReadPath | None = None
    """where the corpus lies"""
    captions: Literal["all", "first"] = "all"
    """captions per image to use as queries"""
    datasets: tuple[str, ...] = ("scenes",)
    """to classify, as evaluation.zero_shot takes them: scenes, cifar10, ..., folder:DIR"""
    classes: ReadPath | None = None
    """file of class names, as evaluation.zero_shot takes it"""
    templates: Annotated[str | None, Reads()] = None
    """file or name of templates, as evaluation.zero_shot takes them"""
    split: str | None = None
    """train, validation or test (default: validation, or the one that accuracies of a data set are
    published on)"""
    images: Count | None = None
    """score on N images: the first of a corpus, drawn by the seed from a data set"""
    repetitions: Count = 10
    """times that each model is timed, in turn with the others"""
    seed: Seed = 0
    """seed for drawing images and for the intervals"""
    device: str = "cpu"
    """where to compute: cpu, cuda, mps"""
    output: WrittenPath = Path("results/latency")
    """directory to write report and table into"""
    overwrite: bool = False
    """replace an earlier result"""

    unread: ClassVar = (
        Unread(
            ("datasets", "classes", "templates"),
            lambda options: options.score != "zero-shot",
            "a --score other than zero-shot",
        ),
        Unread(
            ("corpus", "corpus_dir"),
            lambda options: options.score == "zero-shot",
            "--score zero-shot",
        ),
        Unread(
            ("captions",),
            lambda options: options.score != "retrieval",
            "a --score other than retrieval",
        ),
        Unread(
            ("full", "images", "seed"),
            lambda options: options.score == "none",
            "--score none",
        ),
    )

    def check(self) -> None:
        """Raise `UserError` if a model or a batch size is named twice, or classes don't fit."""
        super().check()
        places = [Path(path).expanduser().resolve() for path in self.models]
        for number, path in enumerate(self.models):
            if places[number] in places[:number]:
                raise UserError(f"--models {path} is named twice: name each model once")
        if len(set(self.batch)) < len(self.batch):
            several = " ".join(map(str, self.batch))
            raise UserError(f"--batch {several}: name each batch size once")
        refuse_named_classes(self.classes, self.datasets)


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("evaluation.latency"), LatencyOptions, "evaluation.latency")

import datetime
from dataclasses import replace

from compress.calibrating.device import check_device
from corpora import load_corpus
from evaluation.classifying.data_sets import Wanted, open_data_sets
from evaluation.comparing.clock import image_sides, text_sides
from evaluation.comparing.models import Compared, open_models
from evaluation.comparing.scores import Measure, Naming, Retrieval, Unscored
from evaluation.experiment.search import file_contents, readable
from evaluation.measuring.machine import this_machine, versions
from evaluation.reports.latency import table as latency_table
from evaluation.reports.latency.report import FILE, Latency, ModelRow
from evaluation.reports.record import write_text
from pruning_mechanism import macs

LEAST_AT_ONCE = 32
"""Images or texts that scores are computed with at once, where no batch is larger."""


def main(options: LatencyOptions) -> None:
    """Time and score the models, and write report.json and report.md."""
    check_device(options.device)
    inputs = (*inputs_of(options), *places_of(options.datasets))
    with finished_directory(options.output, options.overwrite, inputs) as directory:
        report = _measured(options)
        report.save(directory / FILE)
        write_text(directory / "report.md", latency_table.markdown(report))
    console().print(latency_table.terminal(report))
    for key in dict.fromkeys(report.skipped):
        console().print(f"skipped, because it can't be read: {printable(key)}")
    console().print(f"wrote {printable(options.output)}", soft_wrap=True)


def _measured(options: LatencyOptions) -> Latency:
    """Everything that the report holds; what can be wrong is found before anything is timed."""
    measure, skipped, timed_on = _measure(options)
    at_once = max(LEAST_AT_ONCE, *options.batch)
    scored = options.score != "none"
    models = open_models(options.models, options.full, options.device, at_once, scored)
    measure.check(models)
    files = file_contents(measure.images, max(options.batch))
    timing = options.batch, options.repetitions, options.device
    images = image_sides(models, files, *timing)
    texts = text_sides(models, measure.texts, *timing)
    return Latency(
        command=published_command("evaluation.latency", options),
        batches=options.batch,
        timed_on=timed_on,
        scored=measure.scored,
        models=tuple(
            ModelRow(
                name=model.name,
                tower_macs=macs(model.stage.model).tower,
                image=image,
                text=text,
                borrows=model.borrows,
                dtype=_dtype(model),
                scores=measure.score(model),
            )
            for model, image, text in zip(models, images, texts, strict=True)
        ),
        skipped=skipped,
        seed=options.seed,
        machine=replace(
            this_machine(options.device, models[0].stage.dtype),
            dtype=", ".join(dict.fromkeys(map(_dtype, models))),
        ),
        versions=versions(),
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    )


def _measure(options: LatencyOptions) -> tuple[Measure, tuple[str, ...], str]:
    """What models are timed and scored on, the keys of unreadable images, and its name."""
    if options.score == "zero-shot":
        wanted = Wanted(
            options.split, options.images, options.seed, options.classes, options.templates
        )
        data_sets = open_data_sets(options.datasets, wanted)
        skipped = tuple(key for data in data_sets for key in data.skipped)
        return Naming(data_sets, options.seed), skipped, data_sets[0].name
    corpus = load_corpus(options.corpus, options.corpus_dir, options.split or "validation")
    name = published_corpus(options.corpus)
    if options.score == "none":
        corpus, skipped = readable(corpus, max(options.batch))
        return Unscored(corpus, name), skipped, name
    corpus, skipped = readable(corpus, options.images)
    split = options.split or "validation"
    return Retrieval(corpus, name, split, options.captions, options.seed), skipped, name


def _dtype(model: Compared) -> str:
    return str(model.stage.dtype).removeprefix("torch.")
