"""Distillation: a small image encoder learns the full tower's embeddings, images only.

A student is a timm backbone with a projection into the full tower's space. The projection is solved
for in closed form before the first step, so that it starts as good as a linear probe; then the
backbone learns as well, or stays frozen. Losses compose: the cosine to the full tower's embedding,
affinities within a batch (TinyCLIP, arXiv 2309.12314), captions against each other (CLIP, arXiv
2103.00020). Several stored views of an image, of which a step sees one, follow MobileCLIP (arXiv
2311.17049). With a text encoder in the full tower's place, the captions teach, and what comes out
is a dual encoder in a space of its own.

    python -m compress.distill --student timm:mobilenetv3_small_100
"""

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

from commands.flags import Bounds, Count, NumberFromZero, Share, Unread
from commands.run import main_of
from compress.command import run_command
from compress.errors import check_installed
from compress.options import MaskShare, OutputOptions
from compress.training.options import TrainingOptions
from compress.training.recipe import Part, Recipe


@dataclass(frozen=True)
class StudentOptions(TrainingOptions):
    """Which student to train, and what it learns."""

    student: str = "timm:mobilenetv3_small_100"
    """an image encoder of timm"""
    weights: str = "pretrained"
    """pretrained where they can be reached, scratch, or a safetensors file of timm's"""
    image_size: Count | None = None
    """side of its images in pixels (default: the full tower's)"""
    attention: Literal["softmax", "sigmoid"] = "softmax"
    """of a vision transformer from scratch; sigmoid: arXiv 2409.04431"""
    train: Part = "all"
    """train all of it, or the projection at its head alone"""
    text_encoder: str | None = None
    """a sentence-transformers model that teaches instead: a dual encoder"""
    cosine: Annotated[float, Bounds(0)] = 1.0
    """weight of each image's cosine to its own embedding by the teacher"""
    contrastive: Annotated[float, Bounds(0)] = 0.0
    """weight of telling an image's caption from the others' in a batch; needs captions"""
    distinct_captions: Share = 1.0
    """drop captions of an image from this cosine to another of it on; 1: none"""
    dropout: MaskShare = 0.0
    """share of the features before the projection that a step leaves out"""
    views: Count = 4
    """stored views of each image: as it is, mirrored, then crops"""
    steps: Count = 2000
    """steps of training, at most"""
    align_features: NumberFromZero | None = 0
    """random features of the projection"""

    unread: ClassVar = (
        *TrainingOptions.unread,
        Unread(("model", "target"), lambda options: bool(options.text_encoder), "--text-encoder"),
        Unread(
            ("distinct_captions",),
            lambda options: not options.reads_captions,
            "--contrastive 0 without --text-encoder",
        ),
    )

    @property
    def reads_captions(self) -> bool:
        """Whether captions count."""
        return self.contrastive > 0 or self.text_encoder is not None

    def check(self) -> None:
        """Raise `UserError` if options don't go together, or a package is missing."""
        super().check()
        check_installed("timm", "train")
        if self.text_encoder:
            check_installed("sentence_transformers", "text")
        if not (self.cosine or self.affinity or self.contrastive):
            raise UserError("--cosine, --affinity and --contrastive are 0: nothing would be learnt")
        if self.align == "none":
            raise UserError("a student's projection is solved for: --align ridge")

    @property
    def recipe(self) -> Recipe:
        """How it is trained."""
        return replace(super().recipe, part=self.train)


@dataclass(frozen=True)
class DistillOptions(StudentOptions, OutputOptions):
    """Train a small image encoder of timm towards the full tower's embeddings.

    Example: python -m compress.distill --student timm:mobilenetv3_small_100
    """


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("compress.distill"), DistillOptions, "compress.distill")

import copy

import torch
from torch import Tensor
from transformers import PreTrainedModel

from compress.budgets.settings import Setting
from compress.calibrating.cache import Cache
from compress.calibrating.drawing import drawn
from compress.errors import UserError
from compress.making.rule import Rule, Step
from compress.making.source import Needs, Source
from compress.rule_command import run_rule
from compress.solving.alignment import align_features, pooled_features
from compress.students.student import (
    Asked,
    check_name,
    check_weights,
    new_student,
    settle_norms,
)
from compress.training.teacher import (
    Teaching,
    by_captions,
    by_full_tower,
    caption_embeddings,
    digest,
)
from compress.training.training import LEAST_IMAGES, check_batch, parted, taught
from pruning_mechanism import check_belongs, text_embeddings
from pruning_mechanism.checkpoints.identity import weights_digest
from pruning_mechanism.checkpoints.opened import Checkpoint
from pruning_mechanism.families import tower_config

USUAL_SIZE = 224
"""Side of the images of a student that learns from captions, if none is asked for."""


def rule(options: StudentOptions) -> Rule:
    """Distillation into the options' student.

    Raises:
        UserError: timm has no such model, or its weights aren't there.
    """
    check_name(options.student)
    check_weights(options.weights)
    setting = Setting(Asked(options.student).architecture)

    def step(source: Source, recipe: Recipe) -> Step:
        untaught, notes = source, tuple[str, ...]()
        if options.text_encoder is None:
            untaught, notes = _with_student(source, options)
        teaching = _teaching(source, options, recipe)
        started = replace(untaught, model=_head_start(untaught, teaching, options))
        learns = copy.deepcopy(started.model)
        lesson = taught(started, learns, recipe, options.finish, options.state, teaching)
        return Step(
            learns,
            started.processor,
            pooled=lesson.pooled,
            embeddings=lesson.embeddings,
            settled=lesson.settled,
            notes=(*notes, *lesson.notes),
            obsolete=(lesson.state,),
        )

    needs = Needs(
        layers=False,
        own=False,
        captions=options.reads_captions,
        full=True,
        images=LEAST_IMAGES,
    )
    return Rule(
        "distill", {setting: options.recipe}, step, lambda _source, asked: check_batch(asked), needs
    )


def _asked(options: StudentOptions, size: int) -> Asked:
    return Asked(
        options.student,
        options.weights,
        options.image_size or size,
        options.attention,
        options.seed,
    )


def _with_student(source: Source, options: StudentOptions) -> tuple[Source, tuple[str, ...]]:
    """A source whose model is a new student in place of the full tower, and notes about it."""
    size = tower_config(source.full.tower.model.config, "vision").image_size
    asked = _asked(options, size if isinstance(size, int) else max(size))
    student = new_student(asked, source.full.tower.dimension, source.full.processor)
    student.model.to(source.sampling.device)  # type: ignore[arg-type]  # its wrapper hides self
    images = replace(source.calibration, processor=student.images)
    if student.drawn:
        settle_norms(student.model, images)
    own = replace(source, model=student.model, processor=student.images, calibration=images)
    return own, student.notes


def _teaching(source: Source, options: StudentOptions, recipe: Recipe) -> Teaching:
    """What the student is to learn: by the full tower, or by the captions."""
    captions = None
    texts: dict[str, str] = {}
    if options.reads_captions:
        texts = {"weights": _texts_digest(source.model), "device": options.device}
        several = source.calibration.corpus["captions"]
        captions = caption_embeddings(
            lambda found: _embedded(source, found), several, texts, options.distinct_captions
        )
    if options.text_encoder is None:
        return by_full_tower(source, recipe, captions)
    if captions is None:
        raise TypeError("a text encoder teaches by captions")
    return by_captions(digest(source.calibration), captions, recipe.views, texts)


def _texts_digest(model: PreTrainedModel) -> str:
    """What identifies the weights of a model's text tower."""
    return weights_digest(part for name, part in model.named_children() if name.startswith("text_"))


def _embedded(source: Source, texts: list[str]) -> Tensor:
    """A model's own embeddings of texts [b, e]."""
    tokenise = source.calibration.tokenise
    if tokenise is None:
        raise UserError(f"{source.path} has no text tower that embeds captions")
    with torch.inference_mode():
        return text_embeddings(source.model, tokenise(texts))


def _head_start(source: Source, teaching: Teaching, options: StudentOptions) -> PreTrainedModel:
    """The student with a projection solved for on what it will learn from, in closed form."""
    learnt, _ = parted(len(source.calibration), options.held_out)
    pooled = pooled_features(source.model, source.calibration, "features")
    known, wanted = pooled[: learnt.stop], teaching.embeddings[: learnt.stop, 0]
    model, _ = align_features(source.model, known, wanted, options.align_features, options.seed)
    return model


def dual_source(options: StudentOptions) -> Source:
    """The source of a dual encoder: a student and a text encoder, which is its own full tower.

    Raises:
        UserError, CorpusError: something that is named can't be used.
    """
    from compress.students.text_encoder import (  # here, since it takes another library
        dual_encoder,
        load_sentence_encoder,
        whole_processor,
    )

    texts = load_sentence_encoder(options.text_encoder or "")
    student = new_student(_asked(options, USUAL_SIZE), texts.dimension)
    model = dual_encoder(student.model, texts)
    model.to(options.device)  # type: ignore[arg-type]  # its wrapper hides self
    processor = whole_processor(student.images, texts)
    check_belongs(processor, model)
    sampling, path = options.sampling, texts.name
    own = Checkpoint(path, path, model, processor)
    calibration = drawn(sampling, processor, own, LEAST_IMAGES)
    if student.drawn:
        settle_norms(model, calibration)
    return Source(
        path,
        model,
        processor,
        own,
        ("vision",),
        (),
        calibration,
        sampling,
        Cache(),
        path,
        texts.identity,
        notes=student.notes,
    )


def main(options: DistillOptions) -> None:
    """Train, align and save."""
    given = dual_source if options.text_encoder else None
    run_rule(rule(options), options, given and (lambda: given(options)))
