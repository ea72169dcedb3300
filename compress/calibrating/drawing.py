"""Draws the calibration images that options ask for."""

from compress.calibrating.calibration import Calibration, Tokeniser, tokeniser_of
from compress.choices import Sampling
from compress.errors import UserError
from corpora import load_corpus
from pruning_mechanism.checkpoints.opened import Checkpoint
from pruning_mechanism.protocols import Processor


def drawn(
    sampling: Sampling,
    processor: Processor,
    texts: Checkpoint | None = None,
    least: int = 1,
    full: Processor | None = None,
) -> Calibration:
    """The calibration images.

    Args:
        sampling: which, and how they are computed.
        processor: prepares them.
        texts: reads their captions, which each must have then; None: captions are not read.
        least: how many readable images are needed.
        full: the full tower's, if that is another: see `Calibration.reading`.

    Raises:
        UserError: there are too few, or captions can't be read.
        CorpusError: the corpus can't be read, or lacks captions.
    """
    tokeniser = _tokeniser(texts) if texts else None
    corpus = load_corpus(
        sampling.corpus, sampling.directory, sampling.split, captions=texts is not None
    )
    calibration = Calibration.draw(
        corpus,
        sampling.samples,
        sampling.seed,
        processor,
        tokeniser,
        sampling.batch_size,
        sampling.device,
    ).reading(sampling.reads or "full", full)
    if not len(calibration):
        raise UserError(f"{sampling.corpus} has no readable image")
    check_enough(len(calibration), least)
    return calibration


def _tokeniser(texts: Checkpoint) -> Tokeniser:
    """What gives captions to a checkpoint's text tower."""
    tokeniser = tokeniser_of(texts.model, texts.processor)
    if problem := getattr(texts.processor, "problem", None):
        raise UserError(problem)
    if tokeniser is None:
        raise UserError(
            f"{texts.path} has no text tower, or no tokenizer for it: pass a whole CLIP that it "
            "belongs to as the text model"
        )
    return tokeniser


def check_enough(images: int, least: int) -> None:
    """Raise `UserError` if so many readable images are fewer than are needed."""
    if images < least:
        raise UserError(
            f"{images} readable calibration images are too few: this rule takes {least} at least"
        )
