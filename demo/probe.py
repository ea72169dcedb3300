"""What a checkpoint knows of scenes: recall by kind of caption, and which wrong words it notices.

Made the figures of demo/clip-scenes/README.md. Stands beside demo.train, on held-out scenes that
it draws itself.

    python -m demo.probe
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from commands.flags import ConfigOption, Count, Seed, StagePath
from commands.run import main_of
from commands.screen import console
from compress.command import run_command


@dataclass(frozen=True)
class ProbeOptions(ConfigOption):
    """Say what a checkpoint knows of held-out scenes.

    Example: python -m demo.probe --model results/clip-longer
    """

    model: StagePath = Path("demo/clip-scenes")
    """a CLIP checkpoint"""
    images: Count = 1000
    """held-out scenes"""
    seed: Seed = 0
    """of the wrong words"""


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("demo.probe"), ProbeOptions, "demo.probe")

import torch
from rich.table import Table

from cascade import Stage
from corpora.generating.layout import BACKGROUNDS, COLOURS, PLACES, SHAPES, SIZES, TEXTURES
from corpora.generating.wording import placing
from corpora.scenes import SEEDS, Scene, captions, render, scene
from evaluation.retrieval import recall

KINDS = ("all things", "two things in full", "relation", "counts and colours", "sizes compared")
WORDS = {
    "colour": COLOURS,
    "shape": SHAPES,
    "texture": TEXTURES,
    "size": tuple(SIZES),
    "place": PLACES,
    "background": tuple(BACKGROUNDS),
}


def main(options: ProbeOptions) -> None:
    """Print both tables."""
    scenes = [scene(SEEDS["validation"], index) for index in range(options.images)]
    stage = Stage.load(str(options.model))
    images = torch.as_tensor(stage.encode_images([render(drawn) for drawn in scenes]))
    console().print(_recall_table(stage, scenes, images))
    table = Table("replaced", "true caption preferred", title="One word of a caption replaced")
    for word, noticed in noticed_words(stage, scenes, images, options.seed).items():
        table.add_row(word, f"{noticed:.1f} %")
    console().print(table)


def _recall_table(stage: Stage, scenes: Sequence[Scene], images: torch.Tensor) -> Table:
    texts = [text for drawn in scenes for text in captions(drawn)]
    scores = torch.as_tensor(stage.encode_texts(texts)) @ images.T
    target = torch.arange(len(scenes)).repeat_interleave(len(KINDS))
    table = Table("captions", "Recall@1", "Recall@5", "Recall@10", title="Text → image")
    rows = {"all": slice(None)} | {kind: slice(i, None, len(KINDS)) for i, kind in enumerate(KINDS)}
    for name, rows_of_kind in rows.items():
        found = recall(scores[rows_of_kind], target[rows_of_kind])
        table.add_row(name, *(f"{value:.1f} %" for value in found.values()))
    return table


def noticed_words(
    stage: Stage, scenes: Sequence[Scene], images: torch.Tensor, seed: int
) -> dict[str, float]:
    """How often the caption of two things in full scores above the same with one word wrong.

    images [N, D] are the embeddings of the scenes. Returns percent for each kind of word; 50 is
    guessing.
    """
    dice = random.Random(seed)
    true = _scores(stage, scenes, images)
    noticed = {}
    for word, choices in WORDS.items():
        wrong = [_misdescribed(drawn, word, choices, dice) for drawn in scenes]
        noticed[word] = 100 * (true > _scores(stage, wrong, images)).cpu().double().mean().item()
    return noticed


def _scores(stage: Stage, scenes: Sequence[Scene], images: torch.Tensor) -> torch.Tensor:
    texts = [placing(drawn, *drawn.things[:2]) for drawn in scenes]
    return (torch.as_tensor(stage.encode_texts(texts)) * images).sum(1)


def _misdescribed(drawn: Scene, word: str, choices: Sequence[str], dice: random.Random) -> Scene:
    """The scene with another background, or with its first thing wrong in one word."""
    if word == "background":
        return replace(drawn, background=_other(drawn.background, choices, dice))
    first, *rest = drawn.things
    other: dict[str, Any] = {word: _other(getattr(first, word), choices, dice)}
    return replace(drawn, things=(replace(first, **other), *rest))


def _other(value: str, choices: Sequence[str], dice: random.Random) -> str:
    return dice.choice([choice for choice in choices if choice != value])
