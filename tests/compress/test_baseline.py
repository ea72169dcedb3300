import json
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from compress.allocation.allocate import uniform
from compress.baseline import BaselineOptions, Estimator, main, scores, select
from compress.budgets.prices import Prices
from compress.calibrating.calibration import CONTRAST, Batch, Calibration, tokeniser_of
from compress.calibrating.importance import Importance
from compress.calibrating.objective import contrastive_loss
from compress.command import run_command
from compress.errors import UserError
from corpora import load_corpus
from pruning_mechanism import Mask, TowerError, load
from pruning_mechanism.encoding import image_embeddings, text_embeddings
from tests.conftest import tiny_clip, tiny_processor
from tests.lanes import sweep

KINDS = get_args(Estimator)
LAYERS, HEADS, WIDTH = 3, 4, 16


@pytest.fixture(scope="module")
def calibration(folder) -> Calibration:
    """Ten images that a contrastive loss sees together, computed five at a time."""
    corpus = load_corpus("folder", folder, "train")
    processor = tiny_processor()
    tokeniser = tokeniser_of(tiny_clip(), processor)
    return Calibration.draw(corpus, 10, 0, processor, tokeniser, batch_size=5)


def importance_by_definition(model, worth) -> Importance:
    """Scores from `worth(weight)`, each weight's own share, written out layer by layer."""
    heads, neurons = [], []
    for layer in model.vision_model.encoder.layers:
        attention, mlp = layer.self_attn, layer.mlp
        rows = [worth(each.weight).sum(1) for each in (attention.q_proj, attention.k_proj)]
        rows += [worth(attention.v_proj.weight).sum(1), worth(attention.out_proj.weight).sum(0)]
        channels = sum(rows) / 4
        heads.append((channels / channels.mean()).view(HEADS, WIDTH // HEADS).mean(1))
        units = (worth(mlp.fc1.weight).sum(1) + worth(mlp.fc2.weight).sum(0)) / 2
        neurons.append(units / units.mean())
    return Importance(torch.stack(heads).detach(), torch.stack(neurons).detach())


def assert_same(found: Importance, expected: Importance) -> None:
    assert found.heads.shape == (LAYERS, HEADS)
    for name in ("heads", "neurons"):
        ours, theirs = getattr(found, name).double(), getattr(expected, name).double()
        torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=1e-6)
        assert theirs.std() > 0.01


def together(calibration) -> Iterator[Batch]:
    """What a contrastive loss sees together, as one batch."""
    return replace(calibration, batch_size=CONTRAST).batches()


def loss_of(model, batch, pixels):
    texts = text_embeddings(model, batch.tokens)
    return contrastive_loss(image_embeddings(model, pixels), texts, model.logit_scale.exp())


def test_magnitude_is_the_sum_of_squares_of_a_units_rows_and_columns(calibration):
    model = tiny_clip()
    found = scores(model, calibration, kind="magnitude")
    assert_same(found, importance_by_definition(model, lambda weight: weight.double().square()))


def test_taylor_is_weight_times_gradient_of_the_summed_loss(calibration):
    model, other = tiny_clip(), tiny_clip()
    for batch in together(calibration):
        loss_of(other, batch, batch.pixels).backward()
    expected = importance_by_definition(other, lambda weight: (weight * weight.grad).abs())
    assert_same(scores(model, calibration, kind="taylor"), expected)


@pytest.mark.parametrize("images", [5, 10])
def test_hessian_is_squared_weight_times_mean_squared_gradient_of_each_image(calibration, images):
    other, squares = tiny_clip(), {}
    for batch in together(calibration.first(images)):
        for image in range(len(batch.pixels)):
            other.zero_grad()
            alone = torch.zeros(len(batch.pixels), 1, 1, 1)
            alone[image] = 1
            with torch.no_grad():
                fixed = image_embeddings(other, batch.pixels)
            embeddings = image_embeddings(other, batch.pixels)
            mixed = torch.where(alone[:, 0, 0] > 0, embeddings, fixed)  # others give no gradient
            texts = text_embeddings(other, batch.tokens).detach()
            contrastive_loss(mixed, texts, other.logit_scale.exp()).backward()
            for weight in other.vision_model.parameters():
                if weight.grad is not None:
                    squares[weight] = squares.get(weight, 0) + weight.grad.square() / images
    expected = importance_by_definition(other, lambda weight: weight.square() * squares[weight])
    found = scores(tiny_clip(), calibration, kind="hessian", hessian_samples=images)
    assert_same(found, expected)


def test_random_scores_follow_the_seed_alone(calibration):
    model = tiny_clip()
    torch.manual_seed(5)
    expected_next = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = (scores(model, calibration, seed=s, kind="random") for s in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected_next)
    assert torch.equal(first.heads, again.heads)
    assert torch.equal(first.neurons, again.neurons)
    assert not torch.equal(first.heads, other.heads)
    assert not torch.equal(first.neurons, other.neurons)


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_is_left_as_it_was(calibration, kind):
    model = tiny_clip()
    frozen, held = list(model.vision_model.parameters())[3:5]
    frozen.requires_grad_(False)
    held.grad = torch.full_like(held, 3.0)
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    scores(model, calibration, kind=kind)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    grads = {name for name, weight in model.named_parameters() if weight.grad is not None}
    asking = [weight for weight in model.parameters() if not weight.requires_grad]
    assert len(grads) == 1
    assert held.grad.unique().tolist() == [3.0]
    assert [id(weight) for weight in asking] == [id(frozen)]
    assert all(module.training for module in model.modules())


def test_a_half_precision_tower_is_scored_in_single_precision(calibration):
    half = tiny_clip().to(torch.bfloat16)
    found = scores(half, calibration, kind="hessian", texts=tiny_clip())
    expected = scores(
        tiny_clip().to(torch.bfloat16).float(), calibration, kind="hessian", texts=tiny_clip()
    )
    assert half.dtype == torch.bfloat16
    assert_same(found, expected)


def test_dead_units_score_zero_and_a_dead_layer_too(calibration):
    model = tiny_clip()
    first, second = (layer.mlp for layer in model.vision_model.encoder.layers[:2])
    with torch.no_grad():
        for weight in (first.fc1.weight, first.fc2.weight.T):
            weight[7] = 0
        second.fc1.weight.zero_()
        second.fc2.weight.zero_()
    for kind in ("magnitude", "taylor", "hessian"):
        neurons = scores(model, calibration, kind=kind).neurons
        assert (neurons[0] == 0).nonzero().flatten().tolist() == [7]
        assert not neurons[1].any()


@pytest.mark.parametrize("kind", ["magnitude", "taylor"])
def test_a_checkpoint_with_nan_is_refused(calibration, kind):
    model = tiny_clip()
    with torch.no_grad():
        model.vision_model.encoder.layers[1].mlp.fc1.weight[3, 3] = torch.nan
    with pytest.raises(TowerError, match="NaN"):
        scores(model, calibration, kind=kind)


def test_a_tower_that_torch_pruning_couples_otherwise_is_refused():
    model = tiny_clip()
    model.vision_model.encoder.layers[2].mlp.gate = torch.nn.Linear(WIDTH, 24)  # takes no part
    with pytest.raises(TowerError, match=r"layer 2.*neurons.*fc2"):
        scores(model, None, kind="magnitude")


def test_a_vision_tower_alone_is_scored_with_anothers_texts(clip_directory, calibration):
    config = tiny_clip().config.vision_config
    vision = CLIPVisionModelWithProjection.from_pretrained(clip_directory, config=config)
    for kind in ("taylor", "hessian"):
        alone = scores(vision, calibration, kind=kind, texts=tiny_clip())
        assert_same(alone, scores(tiny_clip(), calibration, kind=kind))


@pytest.mark.parametrize("kind", ["taylor", "hessian"])
def test_a_loss_without_gradient_is_refused(calibration, kind):
    with pytest.raises(UserError, match="at least 2 images"):
        scores(tiny_clip(), calibration.first(1), kind=kind)


@st.composite
def scored_towers(draw):
    layers, heads, neurons = draw(st.tuples(*[st.integers(1, most) for most in (3, 4, 9)]))
    torch.manual_seed(draw(st.integers(0, 99)))
    config = CLIPVisionConfig(
        hidden_size=4 * heads,
        intermediate_size=neurons,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        image_size=8,
        patch_size=4,
    )
    return Importance(torch.rand(layers, heads), torch.rand(layers, neurons)), config


@given(scored_towers(), st.floats(0.01, 1), st.sampled_from(["uniform", "scores"]))
def test_the_budget_is_never_exceeded(tower, mac_constraint, allocate):
    importance, config = tower
    mask = select(importance, mac_constraint, config, allocate)
    assert mask.mac_fraction(config) <= mac_constraint


@given(scored_towers(), st.floats(0.01, 1))
def test_one_ranking_keeps_the_best_of_the_tower_and_the_same_share_of_heads(tower, constraint):
    importance, config = tower
    mask = select(importance, constraint, config, "scores")
    for kept, score in ((mask.heads, importance.heads), (mask.neurons, importance.neurons)):
        if kept.any() and not kept.all():
            assert score[kept].min() >= score[~kept].max()
    assert int(mask.heads.sum()) == int(mask.heads.numel() * Fraction(repr(constraint)))


def test_the_same_share_everywhere_is_the_default(calibration):
    model = tiny_clip()
    importance = scores(model, calibration)
    mask = select(importance, 0.5, model.config)
    assert mask == uniform(importance, Prices.in_macs(model.config, 0.5))
    assert mask != select(importance, 0.5, model.config, "scores")


@pytest.mark.parametrize("allocate", ["uniform", "scores"])
@pytest.mark.parametrize("mac_constraint", [0, 1.5])
def test_a_constraint_out_of_range_is_refused(allocate, mac_constraint):
    importance = Importance(torch.rand(LAYERS, HEADS), torch.rand(LAYERS, 24))
    with pytest.raises(UserError, match="a MAC constraint must be"):
        select(importance, mac_constraint, tiny_clip().config, allocate)


def run(model, folder, output, *flags) -> None:
    given = ["--model", model, "--corpus", "folder", "--corpus-dir", folder, "--output", output]
    given += ["--samples", 12, "--batch-size", 4, "--repair-samples", 8, *flags]
    run_command(main, BaselineOptions, "compress.baseline", [str(each) for each in given])


@pytest.mark.parametrize("kind", sweep(KINDS, ("hessian",)))
def test_the_command_writes_a_smaller_tower(clip_directory, folder, tmp_path, kind):
    flags = ("--importance", kind, "--mac-constraint", 0.5, "--repair", "reconstruct")
    run(clip_directory, folder, tmp_path / "out", *flags)
    mask = Mask.load(tmp_path / "out" / "mask.safetensors")
    record = json.loads((tmp_path / "out" / "compression.json").read_text())
    heads = load(tmp_path / "out").config.vision_config.heads_per_layer
    assert heads == mask.heads.sum(1).tolist() == [2, 2, 2]
    assert 0.4 < mask.mac_fraction(tiny_clip().config) <= 0.5
    assert (record["rule"], record["constraint"]) == (kind, "MAC 0.5")


def test_the_command_does_what_the_library_does(clip_directory, folder, tmp_path):
    flags = ("--importance", "taylor", "--allocate", "scores", "--batch-size", 32)
    run(clip_directory, folder, tmp_path / "out", *flags)
    model, corpus = load(clip_directory), load_corpus("folder", folder, "train")
    importance = scores(model, corpus, samples=12, kind="taylor")
    mask = select(importance, 0.5, model.config, "scores")
    assert mask == Mask.load(tmp_path / "out" / "mask.safetensors")


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--mac-constraint", 2), "--mac-constraint must be in (0, 1]"),
        (("--importance", "hessian", "--hessian-samples", 1), "--hessian-samples must be"),
    ],
)
def test_what_cannot_work_is_refused(clip_directory, folder, tmp_path, capsys, flags, reason):
    with pytest.raises(SystemExit) as caught:
        run(clip_directory, folder, tmp_path / "out", *flags)
    assert caught.value.code == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
