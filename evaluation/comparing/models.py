"""The models that are compared, each with the text tower that it is scored with.

A whole CLIP has its own; a vision tower alone borrows that of the full tower that it was made from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cascade import Stage
from commands.published import published_name
from compress.errors import UserError
from evaluation.classifying.stages import Classifying, calibration_keys
from evaluation.classifying.tasks import distinct
from evaluation.experiment.first_stages import belongs_to
from pruning_mechanism.checkpoints.checkpoint import fingerprint


@dataclass(frozen=True)
class Compared:
    """A model, under the name that reports give it, and the one whose text tower it is scored with.

    `texts` is itself if it has a text tower, and None if it isn't scored and has none.
    """

    images: Classifying
    texts: Classifying | None

    @property
    def name(self) -> str:
        """Of its directory, or on the hub."""
        return self.images.name

    @property
    def stage(self) -> Stage:
        """As it embeds images."""
        return self.images.stage

    @property
    def borrows(self) -> str | None:
        """The name of another model that lends it a text tower."""
        lent = self.texts is not None and self.texts is not self.images
        return self.texts.name if self.texts and lent else None


def open_models(
    paths: Sequence[str], full: str | None, device: str, batch_size: int, scored: bool
) -> list[Compared]:
    """The models in the order given.

    Args:
        paths: directories or hub names, each once.
        full: a whole CLIP that lends its text tower, if it isn't one of the paths.
        device: where they compute.
        batch_size: images or texts computed at once.
        scored: whether texts are embedded, so that a vision tower alone has to borrow.

    Raises:
        UserError: no text tower is there for a vision tower to borrow, or none that fits.
        TowerError: a checkpoint can't be loaded, or lacks a tokenizer.
    """
    places = list(dict.fromkeys([*paths, *([full] if full else [])]))
    names = distinct([published_name(path) for path in places])
    opened = {
        path: Classifying(name, _opened(path, device, batch_size), calibration_keys(path))
        for path, name in zip(places, names, strict=True)
    }
    lenders = {path: model for path, model in opened.items() if model.stage.text_modules}
    if full and full not in lenders:
        raise UserError(f"--full {full} is a vision tower alone: name a whole CLIP")
    return [
        Compared(opened[path], _texts_of(path, opened[path], lenders, full) if scored else None)
        for path in paths
    ]


def _opened(path: str, device: str, batch_size: int) -> Stage:
    stage = Stage.load(path, device, batch_size, without_texts=True)
    if stage.text_modules:
        stage.encode_texts(["a"])  # a tokenizer that can't be used fails at once
    return stage


def _texts_of(
    path: str, model: Classifying, lenders: Mapping[str, Classifying], full: str | None
) -> Classifying:
    """The model that embeds a model's texts: itself, or the one that it borrows from."""
    if path in lenders:
        return model
    found = lenders[_lender(path, lenders, full)]
    if found.stage.dimension != model.stage.dimension:
        raise UserError(
            f"{path} embeds images into {model.stage.dimension} dimensions, but {found.name}, "
            f"whose text tower it would borrow, into {found.stage.dimension}: they don't belong "
            "together"
        )
    return found


def _lender(path: str, lenders: Mapping[str, Classifying], full: str | None) -> str:
    """Which of the lenders a vision tower was made from, as its record says, or as it must be."""
    if not lenders:
        raise UserError(
            f"{path} is a vision tower alone, and no text tower is there for it to be scored with: "
            "name the whole CLIP that it was made from in --models or as --full, or pass "
            "--score none"
        )
    made_from = {
        place: belongs_to(Path(path), fingerprint(place, lender.stage.model))
        for place, lender in lenders.items()
    }
    if sure := [place for place, belongs in made_from.items() if belongs]:
        return sure[0]
    names = ", ".join(lenders)
    if None not in made_from.values():
        raise UserError(
            f"{path} is a vision tower that was made from another checkpoint than {names}, whose "
            "text tower it would borrow: name the one that it was made from in --models or as "
            "--full"
        )
    if full:
        return full
    if len(lenders) > 1:
        raise UserError(
            f"{path} is a vision tower alone, and nothing says which of {names} it was made from, "
            "whose text tower it is to borrow: name it as --full"
        )
    return names
