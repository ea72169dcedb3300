"""What a plan is made from: the sample that both stages have encoded, and the queries."""

import os
from collections.abc import Callable, Sequence

from cascade.collection import Collection
from cascade.measuring.captions import captions_of, drawn_texts
from evaluation.planning.asking import Asked, asked_images, asked_texts
from evaluation.planning.certifying import queries_needed
from evaluation.planning.conformal import scores_needed
from evaluation.planning.cutting import PARTS, Texts, caption_texts
from evaluation.planning.everyday import everyday_texts
from evaluation.planning.sample import Sample, encoded_sample
from evaluation.planning.telling import percent
from evaluation.planning.terms import PlanError, Terms


def check_queries(number: int, halved: bool, terms: Terms) -> None:
    """Whether there are enough queries is known before the work.

    Raises:
        PlanError: there are not; half of them, if that many are learnt from.
    """
    if halved:
        number -= number // 2  # those that are certified on
    needed = queries_needed(terms.agreement, terms.confidence, terms.p_value)
    if number < needed:
        others = ", the others being learnt from" if halved else ""
        raise PlanError(
            f"{number:,} queries certify nothing{others}: an agreement of "
            f"{percent(terms.agreement)} with {percent(terms.confidence)} confidence needs "
            f"{needed:,} even if all agree fully"
        )


def check_collection(collection: Collection, k: int) -> None:
    """Raise `PlanError` if there is nothing to plan, or it can't be written."""
    stages, images, path = len(collection.stages), len(collection), collection.path
    if stages != 2:
        raise PlanError(
            f"{path} has {stages} stage{'s' if stages > 1 else ''}: a plan is made for two, a "
            "first stage and the full tower"
        )
    if images <= k:
        raise PlanError(
            f"--k {k}: {path} holds {images} images, and a plan needs more than results"
        )
    if path is not None and not os.access(path, os.W_OK):
        raise PlanError(f"{path} can't be written, and what the full tower encodes is kept in it")


def sample_of(
    collection: Collection,
    number: int,
    k: int,
    seed: int,
    batch_size: int,
    progress: Callable[[int], object] | None = None,
) -> Sample:
    """The sample; arguments as of `encoded_sample`, and k results.

    Raises:
        PlanError: too few images of it can be read.
    """
    sample = encoded_sample(collection, number, seed, batch_size, progress)
    if len(sample.positions) <= 1 or sample.images <= k:
        raise PlanError(
            f"the full tower can read only {len(sample.positions):,} of {number:,} images of "
            f"{collection.path}: bring them back to where they were, or index what there is"
        )
    return sample


def asked_of(
    collection: Collection,
    sample: Sample,
    given: tuple[Sequence[str], str] | None,
    number: int,
    everyday: bool,
    seed: int,
) -> Asked:
    """The queries: those given, captions, everyday texts, or images.

    Args:
        collection: that is searched.
        sample: of it.
        given: texts and what they are; None: none are.
        number: how many are drawn if none are given.
        everyday: whether texts stand in for captions; otherwise images do.
        seed: of what is drawn.
    """
    if given is not None:
        return asked_texts(collection, *given)
    if captions := captions_of(collection.rows()):
        some = drawn_texts(captions, number, seed)
        return asked_texts(collection, some, "captions of the collection")
    if everyday:
        return asked_texts(collection, everyday_texts(number, seed), "everyday texts")
    return asked_images(collection, sample, number, seed)


def texts_to_tell(
    collection: Collection,
    matching: tuple[Sequence[str], str] | None,
    unmatched: tuple[Sequence[str], str] | None,
    number: int,
    seed: int,
) -> Texts:
    """Queries that something matches, and such that nothing does.

    Args:
        collection: that is searched.
        matching: texts and what they are; None: captions are drawn.
        unmatched: texts and what they are; None: captions without their images.
        number: of captions to draw.
        seed: of what is drawn.

    Raises:
        PlanError: there are no captions, and texts of one kind aren't given.
    """
    if matching is not None and unmatched is None:
        raise PlanError(
            "what nothing matches can't be made of --queries, whose images aren't known: name a "
            "file of such texts, --unmatched FILE, or leave out --queries if there are captions"
        )
    if matching is None:
        drawn = caption_texts(collection, number, seed)
        if drawn is None:
            raise PlanError(
                f"{collection.path} has no captions to learn a cutoff from: name a file of texts "
                "that something in it matches, --queries, and one of texts that nothing does, "
                "--unmatched"
            )
        if unmatched is None:
            return drawn
        matching = drawn.matching, drawn.of
    texts, of = matching
    others, against = unmatched if unmatched is not None else ((), "")
    nothing: list[frozenset[str]] = [frozenset()] * len(others)
    return Texts(texts, others, nothing, of, against)


def check_texts(matching: int, unmatched: int, share: float, confidence: float) -> None:
    """Whether there are enough texts for a cutoff, known before the work.

    Raises:
        PlanError: there are not.
    """
    needed = PARTS * scores_needed(share, confidence)
    if min(matching, unmatched) < needed:
        raise PlanError(
            f"{min(matching, unmatched):,} queries give no cutoff: one that wrongly rejects at "
            f"most {percent(share)} with {percent(confidence)} confidence needs {needed:,} of "
            "each kind"
        )
