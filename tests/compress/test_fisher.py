import itertools
import json
from fractions import Fraction

import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from compress.allocation.allocate import split_budget
from compress.budgets.prices import Prices
from compress.calibrating.calibration import Batch
from compress.calibrating.importance import Importance, MaskGradients, mask_gradients
from compress.calibrating.objective import Embedding
from compress.command import run_command
from compress.errors import UserError
from compress.fisher import (
    FisherOptions,
    fisher_information,
    main,
    rearrange,
    scores,
    select,
)
from corpora import load_corpus
from pruning_mechanism import Mask, Shape, Tower, load, sublayers
from tests.conftest import tiny_clip, tiny_processor
from tests.lanes import examples


def tower(layers, heads, neurons):
    return CLIPVisionConfig(
        hidden_size=4 * heads,
        intermediate_size=neurons,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        image_size=8,
        patch_size=4,
    )


@st.composite
def small_towers(draw, most_units=12):
    layers, heads, neurons = (
        draw(st.integers(1, 2)),
        draw(st.integers(1, 3)),
        draw(st.integers(1, 4)),
    )
    scores = st.floats(2**-10, 8, allow_nan=False, width=32)
    units = layers * (heads + neurons)
    flat = torch.tensor(draw(st.lists(scores, min_size=units, max_size=units)))
    importance = Importance(
        flat[: layers * heads].view(layers, heads), flat[layers * heads :].view(layers, neurons)
    )
    return importance, tower(layers, heads, neurons)


def kept_importance(importance, mask):
    return (
        importance.heads[mask.heads].double().sum()
        + importance.neurons[mask.neurons].double().sum()
    )


def best_by_brute_force(importance, budget, shape) -> float:
    """The most importance that any of all masks keeps within the budget."""
    scores = torch.cat([importance.heads.flatten(), importance.neurons.flatten()]).double()
    heads = importance.heads.numel()
    costs = torch.full((len(scores),), float(shape.neuron_macs()), dtype=torch.float64)
    costs[:heads] = shape.head_macs()
    masks = torch.tensor(
        list(itertools.product([0.0, 1.0], repeat=len(scores))), dtype=torch.float64
    )
    kept, cost = masks @ scores, masks @ costs
    return kept[cost <= budget].max().item()


@settings(max_examples=examples(20, 60), deadline=None)
@given(case=small_towers(), constraint=st.floats(0.01, 1))
def test_the_split_is_the_best_of_all_masks(case, constraint):
    importance, config = case
    shape = Shape.of(config)
    mask = split_budget(importance, Prices.in_macs(config, constraint))
    exactly = Fraction(repr(constraint)) * shape.encoder_macs
    expected = best_by_brute_force(importance, float(int(exactly)), shape)
    assert kept_importance(importance, mask).item() == pytest.approx(expected, rel=1e-9)


@settings(max_examples=examples(20, 60), deadline=None)
@given(seed=st.integers(0, 10**6), constraint=st.floats(0.01, 1))
def test_the_budget_is_kept_and_less_than_a_head_left_over(seed, constraint):
    generator = torch.Generator().manual_seed(seed)
    importance = Importance(
        torch.rand(4, 6, generator=generator), torch.rand(4, 50, generator=generator)
    )
    config = tower(4, 6, 50)
    shape = Shape.of(config)
    used = select(importance, constraint, config).shape(config).encoder_macs
    left = Fraction(repr(constraint)) * shape.encoder_macs - used
    assert 0 <= left < shape.head_macs()


def test_equal_scores_use_the_budget_up():
    config = tower(2, 3, 8)
    importance = Importance(torch.zeros(2, 3), torch.zeros(2, 8))
    assert split_budget(importance, Prices.in_macs(config, 1.0)) == Mask.dense(config)


@pytest.mark.parametrize("constraint", [0, -0.1, 1.01, float("nan")])
def test_a_constraint_outside_0_to_1_is_refused(constraint):
    importance = Importance(torch.ones(1, 2), torch.ones(1, 3))
    with pytest.raises(UserError, match=r"must be in \(0, 1\]"):
        select(importance, constraint, tower(1, 2, 3))


def test_fisher_information_is_the_sum_of_outer_products():
    heads, neurons = torch.randn(10, 2, 3), torch.randn(10, 2, 5)
    parts = [MaskGradients(heads[:4], neurons[:4]), MaskGradients(heads[4:], neurons[4:])]
    found = fisher_information(parts)
    expected = sum(torch.stack([torch.outer(g, g) for g in image]) for image in neurons)
    torch.testing.assert_close(found.neuron_block, expected)
    torch.testing.assert_close(found.heads, heads.square().sum(0))


def form(block, keep):
    dropped = (~keep).double()
    return (dropped @ block.double() @ dropped).item()


@settings(max_examples=examples(20, 60), deadline=None)
@given(seed=st.integers(0, 10**6), units=st.integers(2, 9), share=st.floats(0.1, 0.9))
def test_rearranging_lowers_the_form_until_no_swap_does(seed, units, share):
    generator = torch.Generator().manual_seed(seed)
    gradients = torch.randn(6, units, generator=generator)
    block = gradients.T @ gradients
    kept = max(1, int(share * units))
    keep = torch.zeros(units, dtype=torch.bool)
    keep[block.diagonal().argsort(descending=True)[:kept]] = True
    found = rearrange(block, keep)
    assert found.sum() == keep.sum()
    assert form(block, found) <= form(block, keep) + 1e-9
    for inside, outside in itertools.product(found.nonzero(), (~found).nonzero()):
        swapped = found.clone()
        swapped[inside], swapped[outside] = False, True
        assert form(block, swapped) >= form(block, found) - 1e-6 * block.abs().max().item()


def test_rearranging_keeps_one_of_two_units_that_stand_in_for_each_other():
    # units 0 and 1 hurt little if one goes and much if both do; unit 2 is worth more than either
    gradients = torch.tensor([[1.0, 1.0, 1.1], [1.0, 1.0, -1.1]])
    keep = torch.tensor([False, False, True])
    found = rearrange(gradients.T @ gradients, keep)
    assert found.tolist() in ([True, False, False], [False, True, False])


def test_selection_without_blocks_is_not_rearranged():
    config, importance = tower(2, 3, 8), Importance(torch.rand(2, 3), torch.rand(2, 8))
    assert select(importance, 0.5, config) == split_budget(importance, Prices.in_macs(config, 0.5))


@pytest.fixture
def vision_only(clip_directory, tmp_path):
    """A vision tower alone, without text tower or tokenizer."""
    config = tiny_clip().config.vision_config
    vision = CLIPVisionModelWithProjection.from_pretrained(clip_directory, config=config)
    vision.save_pretrained(tmp_path / "vision")
    tiny_processor().image_processor.save_pretrained(tmp_path / "vision")
    return load(tmp_path / "vision")


@pytest.fixture
def uncaptioned(folder) -> Dataset:
    corpus = load_corpus("folder", folder, "train")
    return corpus.remove_columns("captions").add_column("captions", [[]] * len(corpus))


def test_the_embedding_objective_needs_neither_captions_nor_a_text_tower(
    vision_only, uncaptioned, clip_directory, folder
):
    alone = scores(vision_only, uncaptioned, samples=12, objective="embedding")
    whole = load(clip_directory)
    captioned = load_corpus("folder", folder, "train")
    other = scores(whole, captioned, samples=12, objective="embedding")
    torch.testing.assert_close(alone.neuron_block, other.neuron_block)
    torch.testing.assert_close(alone.head_block, other.head_block)
    contrastive = scores(whole, captioned, samples=12)
    assert not torch.allclose(alone.neurons, contrastive.neurons)


def test_the_contrastive_objective_says_what_it_misses(
    vision_only, uncaptioned, clip_directory, folder
):
    with pytest.raises(UserError, match="use the embedding objective"):
        scores(load(clip_directory), uncaptioned, samples=12)
    captioned = load_corpus("folder", folder, "train")
    with pytest.raises(UserError, match="needs a caption for each image and a tokenizer"):
        scores(vision_only, captioned, samples=12)


def test_the_seed_decides_the_scores(clip_directory, folder):
    model, corpus = load(clip_directory), load_corpus("folder", folder, "train")
    drawn = [
        scores(model, corpus, samples=12, seed=seed, objective="embedding").neurons
        for seed in (3, 3, 4)
    ]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_the_command_hands_objective_and_seed_to_the_scores(clip_directory, folder, tmp_path):
    flags = ("--model", clip_directory, "--corpus", "folder", "--corpus-dir", folder)
    flags += ("--samples", 12, "--seed", 3, "--repair", "none", "--objective", "embedding")
    output = tmp_path / "out"
    given = [str(each) for each in (*flags, "--output", output)]
    run_command(main, FisherOptions, "compress.fisher", given)
    model, corpus = load(clip_directory), load_corpus("folder", folder, "train")
    importance = scores(model, corpus, samples=12, seed=3, objective="embedding")
    assert Mask.load(output / "mask.safetensors") == select(importance, 0.5, model.config)
    record = json.loads((output / "compression.json").read_text())
    assert record["settings"]["objective"] == "embedding"


def label_free(model, pixels) -> Importance:
    return fisher_information(mask_gradients(Tower.of(model), [Batch(pixels, {})], Embedding(2)))


def test_dead_and_duplicate_neurons_are_ranked_and_selected_the_same_every_time():
    model = tiny_clip()
    with torch.no_grad():
        for part in sublayers(model):
            if part.kind == "neurons":
                fc1 = part.body.fc1
                part.output.weight[:, 0] = 0  # nobody hears neuron 0
                fc1.weight[1], fc1.bias[1] = 0, 0  # neuron 1 is silent: quick_gelu(0) = 0
                fc1.weight[3], fc1.bias[3] = fc1.weight[2], fc1.bias[2]
                part.output.weight[:, 3] = part.output.weight[:, 2]
    pixels = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    first, second = label_free(model, pixels), label_free(model, pixels)
    assert (first.neurons[:, :2] == 0).all()
    torch.testing.assert_close(first.neurons[:, 2], first.neurons[:, 3])
    assert (first.neurons[:, 2] > 0).all()
    for constraint in (0.2, 0.5, 0.9):
        mask = select(first, constraint, model.config)
        assert mask == select(second, constraint, model.config)
        # nothing is lost with the dead ones, so they never stay where another went
        assert not (mask.neurons[:, :2].any(1) & ~mask.neurons[:, 2:].all(1)).any()


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0])
def test_images_all_alike_give_finite_scores_and_a_mask_within_the_budget(value):
    model = tiny_clip()
    importance = label_free(model, torch.full((5, 3, 16, 16), value))
    assert importance.head_block.isfinite().all()
    assert importance.neuron_block.isfinite().all()
    assert (importance.neurons >= 0).all()
    assert importance.neurons.max() > 0
    mask = select(importance, 0.4, model.config)
    assert mask == select(importance, 0.4, model.config)
    assert 0.2 < mask.mac_fraction(model.config) <= 0.4


def test_a_tower_that_ignores_its_images_scores_nothing_and_still_keeps_the_budget():
    model = tiny_clip()
    model.visual_projection.weight.data.zero_()
    importance = label_free(model, torch.randn(3, 3, 16, 16))
    assert (importance.heads == 0).all()
    assert (importance.neurons == 0).all()
    assert 0.2 < select(importance, 0.4, model.config).mac_fraction(model.config) <= 0.4


def test_a_checkpoint_with_nan_is_refused_by_name_and_not_ranked(clip_directory, folder):
    model = load(clip_directory)
    model.vision_model.encoder.layers[1].mlp.fc1.weight.data[5, 2] = torch.nan
    corpus = load_corpus("folder", folder, "train")
    for objective in ("contrastive", "embedding"):
        with pytest.raises(UserError, match="neurons of layer 1"):
            scores(model, corpus, samples=4, objective=objective)
