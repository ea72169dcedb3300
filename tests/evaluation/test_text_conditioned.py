"""Re-ranking with fewer tokens, by the query's text or without it, against its definitions."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cosine_similarity, layer_norm, normalize

from compress.command import run_command
from evaluation.experiment.conditioning import (
    CutTower,
    Order,
    Predictor,
    effect_ranks,
    orders,
    text_effect_ranks,
)
from evaluation.experiment.quality import Answers
from evaluation.experiment.reranking import Cost, Reranking, plans, reached
from evaluation.measuring.bootstrap import Bootstrap
from evaluation.reports.record import RecordError
from evaluation.reports.row import FULL_TOWER
from evaluation.reports.text_conditioned import TextConditioned, markdown
from evaluation.text_conditioned import TextConditionedOptions, main
from pruning_mechanism import Reduction, macs, reduce, save
from pruning_mechanism.ridge import deviations, ridge
from tests.conftest import tiny_clip, tiny_processor
from tests.lanes import examples

LAYERS, PATCHES = 3, 16
KEPT = Path(__file__).resolve().parents[2] / "docs" / "reports" / "text-conditioned"


@pytest.fixture(scope="module")
def model():
    return tiny_clip()


@pytest.fixture(scope="module")
def pixels():
    return torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def at_cut(model, pixels, after):
    """The tokens after the attention of layer `after`, by the plain CLIP's own modules."""
    tower = model.vision_model
    hidden = tower.pre_layrnorm(tower.embeddings(pixels))
    for layer in tower.encoder.layers[: after - 1]:
        hidden = layer(hidden, None)
    layer = tower.encoder.layers[after - 1]
    return hidden + layer.self_attn(layer.layer_norm1(hidden))[0]


@torch.no_grad()
def from_cut(model, hidden, after, sizes=None):
    """The embeddings of tokens at the cut; each counts in attention as often as its size says."""
    tower = model.vision_model
    layer = tower.encoder.layers[after - 1]
    hidden = hidden + layer.mlp(layer.layer_norm2(hidden))
    mask = None
    if sizes is not None:
        mask = sizes.log()[:, None, None].expand(-1, 1, hidden.shape[1], -1)
    for above in tower.encoder.layers[after:]:
        hidden = above(hidden, mask)
    return normalize(model.visual_projection(tower.post_layernorm(hidden[:, 0])), dim=-1)


# -- the tower


@pytest.mark.parametrize("after", range(1, LAYERS + 1))
@pytest.mark.parametrize("keep", [PATCHES, PATCHES - 1])
def test_with_all_patches_it_is_the_full_tower(model, pixels, after, keep):
    cut = CutTower.of(model, after)
    states = cut.states(pixels)
    with torch.no_grad():
        full = normalize(model.get_image_features(pixels).pooler_output, dim=-1)
    assert torch.equal(cut.embedded(states), full)
    assert torch.equal(cut.reduced(states, torch.rand(5, PATCHES), keep), full)


@pytest.mark.parametrize("after", range(1, LAYERS + 1))
def test_the_highest_ranked_patches_go_on_and_the_others_as_one(model, pixels, after):
    cut, keep = CutTower.of(model, after), 6
    states, ranks = cut.states(pixels), torch.randn(5, PATCHES)
    torch.testing.assert_close(states, at_cut(model, pixels, after))
    found = cut.reduced(states, ranks, keep)
    for image, hidden, own in zip(found, states, ranks, strict=True):
        order = sorted(range(PATCHES), key=lambda patch: -own[patch])
        weights = own[order[keep:]].exp()
        rows = [hidden[0], *(hidden[1 + patch] for patch in sorted(order[:keep]))]
        others = [
            weight * hidden[1 + patch] for weight, patch in zip(weights, order[keep:], strict=True)
        ]
        rows.append(sum(others) / weights.sum())
        sizes = torch.tensor([[1.0] * (keep + 1) + [PATCHES - keep]])
        by_hand = from_cut(model, torch.stack(rows)[None], after, sizes)[0]
        torch.testing.assert_close(image, by_hand, atol=1e-5, rtol=0)


@pytest.mark.parametrize("after", [1, LAYERS])
def test_a_contribution_is_the_embedding_minus_that_without_the_patch(model, pixels, after):
    cut = CutTower.of(model, after)
    states = cut.states(pixels)
    found = cut.contributions(states)
    whole, text = from_cut(model, states, after), normalize(torch.randn(8), dim=0)
    for patch in range(PATCHES):
        stay = [token for token in range(PATCHES + 1) if token != patch + 1]
        without = from_cut(model, states[:, stay], after)
        torch.testing.assert_close(found[:, patch], whole - without, atol=1e-5, rtol=0)
        effect = (whole @ text - without @ text).abs()
        torch.testing.assert_close(
            text_effect_ranks(found, text)[:, patch].exp(),
            effect.clamp(min=1e-9),
            atol=1e-5,
            rtol=0,
        )
        lost = 2 * (1 - cosine_similarity(whole, without))
        torch.testing.assert_close(effect_ranks(found)[:, patch].exp(), lost, atol=1e-5, rtol=0)


def test_a_patch_is_read_early_as_if_it_were_the_class_token_at_the_end(model, pixels):
    cut = CutTower.of(model, 2)
    states = cut.states(pixels)
    with torch.no_grad():
        read = model.visual_projection(model.vision_model.post_layernorm(states[:, 1:].clone()))
    torch.testing.assert_close(cut.read_early(states), normalize(read, dim=-1))


def test_contributions_are_predicted_by_the_ridge_regression_on_tokens(model, pixels):
    cut = CutTower.of(model, 2)
    batches = [cut.states(part) for part in torch.cat([pixels, pixels.flip(3)]).split(4)]
    predictor = Predictor.solve(cut, batches)
    states = torch.cat(batches)
    tokens = layer_norm(states[:, 1:], states.shape[-1:]).flatten(0, 1)
    wanted = cut.contributions(states).flatten(0, 1)
    scaled = (tokens - tokens.mean(0)) / deviations(tokens)
    solved = ridge(scaled, wanted, together=PATCHES)
    by_hand = scaled.double() @ solved.weight + solved.intercept
    found = predictor(states).flatten(0, 1)
    torch.testing.assert_close(found.double(), by_hand, atol=1e-5, rtol=0)
    assert (found - wanted).square().sum() < (wanted.mean(0) - wanted).square().sum()


def test_no_query_changes_what_is_below_the_cut(model):
    """The MACs below and those above, counted layer by layer, are the tower's."""
    n, d, neurons, final = PATCHES + 1, 16, 24, 16 * 8
    attention, mlp = 4 * n * d * d + 2 * n * n * d, 2 * n * d * neurons
    for after in range(1, LAYERS + 1):
        above = (LAYERS - after) * attention + (LAYERS - after + 1) * mlp + final
        assert CutTower.of(model, after).macs_below == macs(model).tower - above


# -- re-ranking


def searched(texts, candidates) -> Reranking:
    target = candidates[:, 0]
    full = Answers(torch.zeros(len(target), dtype=torch.long), candidates[:, :10])
    return Reranking(texts, target, candidates, full, Bootstrap(target))


@pytest.fixture(scope="module")
def cut_states(model, pixels):
    cut = CutTower.of(model, 2)
    return cut, cut.states(pixels)


def test_for_a_constant_text_an_order_by_text_is_one_that_does_not_know_the_query(cut_states):
    cut, states = cut_states
    text, known = normalize(torch.randn(8), dim=0), cut.contributions(states)
    search = searched(text.expand(4, -1), torch.stack([torch.randperm(5) for _ in range(4)]))

    def by_text(at, given):
        return text_effect_ranks(known[at], given)

    conditioned = search.reranked(cut, states, Order("", True, True, by_text), 4)
    independent = search.reranked(cut, states, Order("", False, True, by_text), 4)
    torch.testing.assert_close(conditioned, independent, atol=1e-6, rtol=0)


def test_each_query_reranks_its_candidates_by_its_own_text(cut_states):
    cut, states = cut_states
    texts = normalize(torch.randn(3, 8), dim=-1)
    search = searched(texts, torch.stack([torch.randperm(5)[:4] for _ in range(3)]))
    predictor = Predictor.solve(cut, [states])
    for order in orders(cut, states, predictor, 2):
        found = search.reranked(cut, states, order, 4)
        for query, row in enumerate(search.candidates):
            for place, image in enumerate(row):
                at = image[None]
                embedding = cut.reduced(states[at], order.ranks(at, texts[query]), 4)[0]
                assert found[query, place] == pytest.approx(
                    (embedding @ texts[query]).item(), abs=1e-5
                )
    answers = search.answers(found)
    for query, row in enumerate(found.tolist()):
        best = sorted(range(4), key=lambda place: -row[place])
        assert answers.top[query].tolist() == search.candidates[query, best].tolist()


@settings(max_examples=examples(30, 300))
@given(st.data())
def test_queries_are_charged_for_what_they_are_the_first_to_need(data):
    queries, several, images = (data.draw(st.integers(1, most)) for most in (6, 4, 8))
    several = min(several, images)
    rows = [data.draw(st.permutations(range(images)))[:several] for _ in range(queries)]
    macs_, full = data.draw(st.integers(1, 50)), Cost(data.draw(st.integers(1, 50)))
    cost, seen, spent, once, first = (
        Cost(macs_, data.draw(st.integers(0, macs_))),
        set(),
        0,
        0,
        None,
    )
    for number, row in enumerate(rows, start=1):
        for image in row:
            if image not in seen:
                spent += cost.macs - cost.of_query
                once += full.macs
            seen.add(image)
            spent += cost.of_query
        assert reached(torch.tensor(rows))[number - 1] == len(seen)
        assert cost.spent(torch.tensor(rows))[number - 1] == spent
        first = first or (number if spent > once else None)
    assert cost.break_even(torch.tensor(rows), full) == first


def test_merging_costs_no_more_than_leaving_out_patches_and_hardly_less(model):
    for plan in plans(model.config, (0.5,), (1, 2)):
        ranked, merged = (macs(reduce(model, each)) for each in (plan.ranked, plan.merged))
        assert merged.encoder <= ranked.encoder
        assert ranked.fraction - merged.fraction < 0.05


# -- the command


def run(model, folder, output, *flags):
    given = ["--model", model, "--corpus", "folder", "--corpus-dir", folder, "--samples", 8]
    given += ["--queries", 6, "--m", 12, "--output", output, *flags]
    run_command(
        main, TextConditionedOptions, "evaluation.text_conditioned", [str(each) for each in given]
    )
    return TextConditioned.load(output / "report.json")


@pytest.fixture(scope="module")
def report(clip_directory, folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "out"
    return run(clip_directory, folder, out, "--keep", 1, 0.5, "--after", 1), out


def test_the_report_has_merging_and_every_order_at_equal_tokens(report):
    found, out = report
    full, *rows = found.rows
    assert (full.order, found.images, found.queries, found.m) == (FULL_TOWER, 14, 6, (12,))
    names = [row.order for row in rows[:7]]
    assert names[:2] == ["merging", "attention of class token"]
    assert [row.order for row in rows] == 2 * names
    assert [row.kept for row in rows if row.order != "merging"] == [16] * 6 + [8] * 6
    for row in rows:
        assert row.by_text == ("text" in row.order)
        assert row.encodes == (12 if row.by_text else found.reached / 6)
        assert (row.macs_of_query > 0) == row.by_text
    assert (out / "report.md").read_text() == markdown(found)


def test_with_all_patches_every_order_finds_what_the_full_tower_finds(report):
    for row in report[0].rows:
        if row.kept == PATCHES:
            assert row.result.agreement.value == 100
            assert row.gain.value == 0
            assert {each.value for each in row.result.difference.values()} == {0}


def test_a_report_that_is_not_whole_is_not_read(report, tmp_path):
    content = json.loads((report[1] / "report.json").read_text())
    del content["rows"][1]["macs_of_query"]
    (tmp_path / "report.json").write_text(json.dumps(content))
    with pytest.raises(RecordError, match="lacks macs_of_query"):
        TextConditioned.load(tmp_path / "report.json")


@pytest.mark.parametrize("path", sorted(KEPT.iterdir()), ids=lambda path: path.stem)
def test_reports_that_were_kept_load_and_say_what_the_docs_conclude(path):
    merged = None
    for row in TextConditioned.load(path).rows[1:]:
        merged = row.result.agreement if row.order == "merging" else merged
        if row.by_text:
            assert row.result.agreement.value < merged.value
            assert row.break_even is not None


def refused(capsys, *arguments) -> str:
    with pytest.raises(SystemExit) as caught:
        run(*arguments)
    assert caught.value.code == 2
    return capsys.readouterr().err.strip().split("\n")[-1]


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--after", 4), "--after takes layers from 1 to 3, found 4"),
        (("--keep", 0), "--keep must be in (0, 1]"),
        (("--m", 10), "--m must be at least 11"),
        (("--samples", 7), "--samples must be at least 8"),
        (("--keep", 0.1), "--keep of 2 patches after layer 1: merging can't go so low: MAC 0.3"),
        (
            ("--keep", 0.5, "--calibration-split", "validation"),
            "both the calibration and the evaluation data",
        ),
    ],
)
def test_what_cannot_work_is_refused(clip_directory, folder, tmp_path, capsys, flags, reason):
    assert reason in refused(capsys, clip_directory, folder, tmp_path / "out", *flags)
    assert list(tmp_path.iterdir()) == []


def test_a_tower_that_leaves_out_tokens_is_no_full_tower(model, folder, tmp_path, capsys):
    merged = tmp_path / "merged"
    save(reduce(model, Reduction(merged_per_layer=(1,) * LAYERS)), merged, tiny_processor())
    message = refused(capsys, merged, folder, tmp_path / "out")
    assert message == "error: --model leaves out tokens or layers already: name the full tower"
