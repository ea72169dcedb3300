"""Trains the demo checkpoint: a small CLIP on generated scenes, or on any other corpus.

Stands before corpus → importance → …: it makes the tower that the rest compresses. Most images are
seen at half their side, which costs less than half; the last ones are seen whole. The learning rate
is level until it falls to zero at the end. An interrupted training goes on where it was, by the
same command.

    python -m demo.train
    python -m demo.train --corpus folder --corpus-dir flickr8k --output results/clip-flickr8k
"""

import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from commands.flags import Bounds, ConfigOption, Count, NumberFromZero, ReadPath, Seed, WrittenPath
from commands.inputs import Input, inputs_of
from commands.run import main_of
from commands.screen import printable
from commands.writing.outputs import finished_directory
from compress.command import run_command
from compress.errors import UserError

Positive = Annotated[float, Bounds(0, low_open=True)]
FloatFromZero = Annotated[float, Bounds(0)]


@dataclass(frozen=True)
class Recipe(ConfigOption):
    """Train a small CLIP (12 × 12 heads, 128 px); the defaults made demo/clip-scenes.

    Example: python -m demo.train --corpus flickr8k --corpus-dir DIR --output results/clip-flickr8k
    """

    corpus: str = "scenes"
    """scenes, coco, flickr30k, flickr8k, folder, or hub:owner/name"""
    corpus_dir: ReadPath | None = None
    """where the corpus lies"""
    output: WrittenPath = Path("demo/clip-scenes")
    """directory of the finished checkpoint"""
    overwrite: bool = False
    """replace a finished checkpoint"""
    state: WrittenPath = Path("demo/training")
    """directory of the unfinished training"""
    samples: Count = 52_000
    """images seen in all"""
    coarse: NumberFromZero = 36_000
    """of these, seen first and at 64 px"""
    decay: Count = 20_000
    """of these, seen last while the learning rate falls"""
    batch: Count = 128
    """images a step"""
    texts: Count = 2
    """captions of each image a step"""
    muon_lr: Positive = 0.02
    """peak learning rate of the hidden matrices"""
    adam_lr: Positive = 1e-3
    """peak learning rate of everything else"""
    weight_decay: FloatFromZero = 0.05
    phrases: Count = 1024
    """phrases to recognise in an image, beside matching captions"""
    phrase_weight: FloatFromZero = 0.5
    """of that part of the loss"""
    seed: Seed = 0
    evaluate_every: Count = 4_000
    """images between two looks at held-out recall"""
    held_out: Count = 1000
    """validation images to look at, at most"""
    threads: Count = 2
    """CPU threads"""
    device: str | None = None
    """where to compute: cpu, cuda, mps (default: cuda if there is one, else cpu)"""

    def check(self) -> None:
        """Raise `UserError` if there are fewer images than a step takes."""
        super().check()
        if self.samples < self.batch:
            raise UserError(f"--samples {self.samples} is less than one --batch {self.batch}")


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("demo.train"), Recipe, "demo.train")

import numpy as np
import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from tqdm import tqdm

from compress.calibrating.device import check_device
from corpora import drop_unreadable, load_corpus, open_image
from demo.batches import Batch, Batches, CorpusSource, SceneSource, Source
from demo.learner import Learner, Rates, recipe_kept
from demo.network import IMAGE_SIDE, build_processor
from demo.phrases import Phrases
from evaluation.retrieval import recall
from pruning_mechanism import save
from pruning_mechanism.checkpoints.checkpoint import cast

CARD = "README.md"
"""The card of a checkpoint, written by hand: training it again keeps it."""
COARSE_SIDE = IMAGE_SIDE // 2
WARM_UP = 50  # steps
SECONDS_BETWEEN_SAVES = 120
# What may change when a training is taken up again.
FREE = {"config", "output", "state", "overwrite", "device", "threads", "evaluate_every", "held_out"}


def main(recipe: Recipe) -> None:
    """Train, and write the checkpoint when it's finished."""
    _check(recipe)
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    inputs = _inputs(recipe)
    with finished_directory(recipe.output, recipe.overwrite, inputs, (CARD,)) as output:
        source, held_out = _corpora(recipe)
        captions = source.captions()
        phrases = Phrases.of(captions, recipe.phrases)
        processor = build_processor(text for texts in captions for text in texts)
        rates = Rates(recipe.muon_lr, recipe.adam_lr, recipe.weight_decay, recipe.phrase_weight)
        learner = Learner(processor, len(phrases), rates, _device(recipe))
        kept = recipe.state / "state.safetensors"
        if kept.exists():
            learner.restore(kept)
            print(f"going on after {learner.steps * recipe.batch:,} images, from {kept}")
        _train(learner, recipe, _batches(learner, recipe, source, phrases), held_out, kept)
        _export(learner, output)
        if (recipe.output / CARD).exists():
            (output / CARD).write_bytes((recipe.output / CARD).read_bytes())
    kept.unlink(missing_ok=True)
    print(f"wrote {printable(recipe.output)}")


def _check(recipe: Recipe) -> None:
    check_device(_device(recipe))
    kept = recipe.state / "state.safetensors"
    if not kept.exists():
        return
    then, now = recipe_kept(kept), _settings(recipe)
    changed = [name for name in now if then.get(name) != now[name]]
    if changed:
        was = ", ".join(f"{name} {then.get(name)}" for name in changed)
        raise UserError(
            f"{kept} is a training with {was}: use these again, name another --state, or delete it"
        )


def _inputs(recipe: Recipe) -> tuple[Input, ...]:
    """What must not be written over: what is read, and the unfinished training."""
    state = (Input("--state", recipe.state),) if recipe.state.exists() else ()
    return (*inputs_of(recipe), *state)


def _device(recipe: Recipe) -> str:
    """Where to compute."""
    return recipe.device or ("cuda" if torch.cuda.is_available() else "cpu")


def _settings(recipe: Recipe) -> dict[str, str]:
    """The part of the recipe that decides what the weights become."""
    return {name: str(value) for name, value in asdict(recipe).items() if name not in FREE}


def _corpora(recipe: Recipe) -> tuple[Source, Dataset]:
    """What to train on, and the held-out images."""
    held_out = load_corpus(recipe.corpus, recipe.corpus_dir, "validation")
    held_out = held_out.select(range(min(recipe.held_out, len(held_out))))
    if recipe.corpus == "scenes":
        return SceneSource(), held_out
    readable, skipped = drop_unreadable(load_corpus(recipe.corpus, recipe.corpus_dir, "train"))
    if skipped:
        print(f"skipped {len(skipped)} unreadable images: {', '.join(skipped[:5])} …")
    return CorpusSource(readable, recipe.seed), drop_unreadable(held_out)[0]


@dataclass(frozen=True)
class Schedule:
    """How large images are, and how fast to learn, at each step."""

    samples: int
    coarse: int
    decay: int
    batch: int

    def side(self, step: int) -> int:
        """Side of the images of this step in pixels."""
        return COARSE_SIDE if step * self.batch < self.coarse else IMAGE_SIDE

    def pace(self, step: int) -> float:
        """Learning rate as a share of its peak: a short rise, then level, then a fall to zero."""
        left = self.samples - step * self.batch
        return min(1.0, (step + 1) / WARM_UP, left / self.decay)

    @property
    def steps(self) -> int:
        """How many in all."""
        return self.samples // self.batch


def _schedule(recipe: Recipe) -> Schedule:
    return Schedule(recipe.samples, recipe.coarse, recipe.decay, recipe.batch)


def _batches(
    learner: Learner, recipe: Recipe, source: Source, phrases: Phrases
) -> DataLoader[Batch]:
    """The batches that are still to come, made in a process of their own."""
    schedule = _schedule(recipe)
    batches = Batches(
        source,
        learner.processor.tokenizer,
        phrases,
        recipe.batch,
        recipe.texts,
        schedule.side,
        recipe.seed,
    )
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # which a forked process can't have
    return DataLoader(
        batches,
        batch_size=None,
        sampler=range(learner.steps, schedule.steps),
        num_workers=1,
        prefetch_factor=4,
    )


def _train(
    learner: Learner, recipe: Recipe, batches: DataLoader[Batch], held_out: Dataset, kept: Path
) -> None:
    """Take every step left, with a bar, a look at recall now and then, and a safety copy."""
    schedule = _schedule(recipe)
    kept.parent.mkdir(parents=True, exist_ok=True)
    saved = time.monotonic()
    with tqdm(
        total=schedule.steps * recipe.batch,
        initial=learner.steps * recipe.batch,
        unit=" images",
        smoothing=0.02,
    ) as bar:
        for batch in batches:
            side = batch.pixels.shape[1]
            losses = learner.step(batch, schedule.pace(learner.steps))
            seen = learner.steps * recipe.batch
            bar.update(recipe.batch)
            bar.set_postfix_str(
                f"{side} px, loss {losses.contrastive:.2f} + {losses.phrases:.2f}", refresh=False
            )
            if seen % recipe.evaluate_every < recipe.batch or learner.steps == schedule.steps:
                bar.write(
                    f"{seen:>9,} images, {side:>3} px: {_recall_line(learner, held_out, side)}"
                )
            if time.monotonic() - saved > SECONDS_BETWEEN_SAVES:
                learner.save(kept, _settings(recipe))
                saved = time.monotonic()


def _recall_line(learner: Learner, held_out: Dataset, side: int) -> str:
    captions = [text for texts in held_out["captions"] for text in texts]
    target = [number for number, texts in enumerate(held_out["captions"]) for _ in texts]
    scores = learner.similarities(_held_out_pixels(learner, held_out, side), captions)
    found = recall(scores, torch.tensor(target))
    return "held-out " + ", ".join(f"Recall@{k} {value:.1f} %" for k, value in found.items())


def _held_out_pixels(
    learner: Learner, held_out: Dataset, side: int, at_once: int = 100
) -> Iterator[torch.Tensor]:
    """The held-out images as the processor prepares them, but for the side; uint8 [., S, S, 3]."""
    for start in range(0, len(held_out), at_once):
        rows = held_out[start : start + at_once]
        prepared = learner.processor.image_processor(
            [open_image(image) for image in rows["image"]],
            size={"shortest_edge": side},
            crop_size={"height": side, "width": side},
            do_rescale=False,
            do_normalize=False,
            return_tensors="np",
        )["pixel_values"]
        pixels = np.clip(np.rint(prepared), 0, 255).astype(np.uint8)
        yield torch.from_numpy(pixels).permute(0, 2, 3, 1)


def _export(learner: Learner, output: Path) -> None:
    """Write the checkpoint in half precision, with its processor."""
    model, notes = cast(learner.model.eval(), torch.float16)
    for note in notes:
        tqdm.write(f"note: {note}")
    save(model, output, learner.processor)
