"""Accuracy from scores, against definitions written out image by image."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.classifying import accuracy
from evaluation.classifying.accuracy import (
    Space,
    answers,
    classes_handed_on,
    confusion,
    judged,
    mean_per_class,
    per_class,
    reranked,
    right_behind,
)
from evaluation.retrieval import hits
from tests.lanes import examples

few = settings(max_examples=examples(25, 200))


@st.composite
def scored(draw):
    """Scores with many ties of two stages, and labels."""
    images, classes = draw(st.integers(1, 6)), draw(st.integers(2, 7))
    values = st.lists(st.integers(0, 4), min_size=images * classes, max_size=images * classes)
    scores, full = (torch.tensor(draw(values)).double().view(images, classes) for _ in range(2))
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=images, max_size=images))
    return scores, full, torch.tensor(labels)


def in_top(scores: list[float], label: int, k: int) -> bool:
    """Whether fewer than k other classes score at least as high."""
    return sum(s >= scores[label] for c, s in enumerate(scores) if c != label) < k


def space(images: int, classes: int, seed: int) -> Space:
    generator = torch.Generator().manual_seed(seed)
    return Space(
        torch.nn.functional.normalize(torch.randn(images, 8, generator=generator), dim=1),
        torch.nn.functional.normalize(
            torch.randn(classes, 8, generator=generator, dtype=torch.float64), dim=1
        ),
    )


@few
@given(scored())
def test_top_k_is_its_definition_and_ties_count_against_the_model(made):
    scores, _, labels = made
    classes = scores.shape[1]
    found = hits(judged(scores, labels).ranks, range(1, classes + 1))
    for row, own, label in zip(found.tolist(), scores.tolist(), labels.tolist(), strict=True):
        assert row == [in_top(own, label, k) for k in range(1, classes + 1)]
        assert row == sorted(row)  # more with k
        assert row[-1]  # every class is among all


@few
@given(scored())
def test_a_prediction_is_a_best_class_and_right_only_if_no_other_is_as_good(made):
    scores, _, labels = made
    found = judged(scores, labels)
    for row, label, predicted in zip(scores, labels, found.predicted, strict=True):
        assert row[predicted] == row.max()
        assert (predicted == label) == in_top(row.tolist(), int(label), 1)


@few
@given(scored(), st.integers(1, 7))
def test_behind_a_stage_an_image_is_right_if_its_class_wins_among_those_handed_on(made, m):
    scores, full, labels = made
    m = min(m, scores.shape[1])
    found = right_behind(scores, full, labels, m).tolist()
    for right, own, other, label in zip(
        found, scores.tolist(), full.tolist(), labels.tolist(), strict=True
    ):
        if not in_top(own, label, m):
            assert not right
            continue
        ranked = sorted((c for c in range(len(own)) if c != label), key=lambda c: -own[c])
        if 0 < m - 1 < len(ranked) and own[ranked[m - 2]] == own[ranked[m - 1]]:
            continue  # which of equal rivals is handed on is left open
        assert right == all(other[c] < other[label] for c in ranked[: m - 1])


@few
@given(scored())
def test_all_classes_handed_on_give_the_full_towers_own_answer(made):
    scores, full, labels = made
    behind = right_behind(scores, full, labels, scores.shape[1])
    assert torch.equal(behind, judged(full, labels).ranks == 0)


@few
@given(scored())
def test_one_class_handed_on_gives_the_stages_own_answer(made):
    scores, full, labels = made
    assert torch.equal(right_behind(scores, full, labels, 1), judged(scores, labels).ranks == 0)


@few
@given(scored(), st.integers(1, 7))
def test_a_cascade_is_right_at_most_where_the_stage_hands_the_class_on(made, m):
    scores, full, labels = made
    m = min(m, scores.shape[1])
    handed_on = judged(scores, labels).ranks < m
    behind = right_behind(scores, full, labels, m)
    assert not (behind & ~handed_on).any()
    alone = judged(full, labels).ranks == 0
    assert (behind | ~(alone & handed_on)).all()  # what wins among all wins among some


@few
@given(scored())
def test_confusions_add_up(made):
    scores, _, labels = made
    classes = scores.shape[1]
    found = judged(scores, labels)
    matrix = confusion(found.predicted, labels, classes)
    assert matrix.sum() == len(labels)
    assert matrix.sum(dim=1).tolist() == torch.bincount(labels, minlength=classes).tolist()
    assert matrix.diagonal().sum() == (found.ranks == 0).sum()
    for one, other in zip(labels.tolist(), found.predicted.tolist(), strict=True):
        matrix[one, other] -= 1
    assert not matrix.any()


@few
@given(scored())
def test_mean_per_class_is_the_mean_of_the_classes_that_have_images(made):
    scores, _, labels = made
    found = judged(scores, labels)
    matrix = confusion(found.predicted, labels, scores.shape[1])
    right = (found.ranks == 0).double()
    means = {int(c): 100 * float(right[labels == c].mean()) for c in labels.unique()}
    assert mean_per_class(matrix) == pytest.approx(sum(means.values()) / len(means))
    shares = per_class(matrix)
    for number, share in enumerate(shares.tolist()):
        assert share == pytest.approx(means[number]) if number in means else share != share


def test_accuracies_are_those_of_a_plain_loop_over_the_same_embeddings():
    found, full = space(200, 30, 0), space(200, 30, 1)
    labels = torch.randint(30, (200,), generator=torch.Generator().manual_seed(2))
    ranks = answers(found, labels).ranks
    right = dict.fromkeys((1, 5, 10), 0)
    behind = 0
    for image, other, label in zip(found.images, full.images, labels, strict=True):
        scores = [sum(float(a) * float(b) for a, b in zip(image, c, strict=True)) for c in
                  found.classes]  # fmt: skip
        order = sorted(range(30), key=lambda c: -scores[c])
        for k in right:
            right[k] += int(label) in order[:k]
        again = (full.classes @ other.double()).tolist()
        behind += max(order[:5], key=lambda c: again[c]) == int(label)
    for k, count in right.items():
        assert int(hits(ranks, [k]).sum()) == count
    assert int(reranked(found, full, labels, 5).sum()) == behind


def test_how_many_images_are_scored_at_once_makes_no_difference(monkeypatch):
    found, full = space(50, 7, 0), space(50, 7, 1)
    labels = torch.arange(50) % 7
    whole, behind = answers(found, labels), reranked(found, full, labels, 3)
    monkeypatch.setattr(accuracy, "_SCORES_AT_ONCE", 21)
    assert torch.equal(answers(found, labels).ranks, whole.ranks)
    assert torch.equal(answers(found, labels).predicted, whole.predicted)
    assert torch.equal(reranked(found, full, labels, 3), behind)


@few
@given(st.integers(1, 30), st.integers(2, 30))
def test_a_stage_never_hands_all_classes_on(m, classes):
    handed_on = classes_handed_on(m, classes)
    assert 1 <= handed_on < classes
    assert handed_on == m or m >= classes


def test_no_images_are_no_accuracy():
    with pytest.raises(ValueError, match="no image to classify"):
        answers(space(0, 3, 0), torch.zeros(0, dtype=torch.long))
