"""How many images are computed at once decides neither masks nor repairs."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compress import baseline, fisher, recover, sensitivity
from compress.allocation.curves import measure_curves
from compress.calibrating.calibration import CONTRAST, _shares
from compress.calibrating.moments import dense_moments
from compress.calibrating.token_weights import token_weights
from compress.command import run_command
from compress.solving.repair import repair_tower
from pruning_mechanism import Mask, Tower, prune
from tests.compress.losses import embedding_loss
from tests.compress.test_coordinates import IMAGES, UNSEEN, every_kind, some
from tests.lanes import sweep
from tests.pruning_mechanism.conftest import tiny_model

SIZES = sweep((1, 7, 8, 32, 1000), (7, 1000))
"""One by one, with a ragged last batch, in even ones, as by default, and all that there are."""
RULES = {
    "fisher": fisher.scores,
    "fisher of embeddings": lambda *args, **kw: fisher.scores(*args, objective="embedding", **kw),
    "sensitivity": sensitivity.scores,
    "taylor": lambda *args, **kw: baseline.scores(*args, kind="taylor", **kw),
    "hessian": lambda *args, **kw: baseline.scores(*args, kind="hessian", **kw),
    "recover": recover.scores,
}


def in_batches(size: int):
    return replace(IMAGES, batch_size=size)


@every_kind
@pytest.mark.parametrize("rule", sweep(RULES, ("fisher of embeddings", "recover")))
def test_scores_do_not_depend_on_it(rule, kind):
    model = tiny_model("clip").double()
    first, *others = (RULES[rule](model, in_batches(size), tower=kind) for size in SIZES)
    for other in others:
        for name in ("heads", "neurons"):
            own = getattr(first, name)
            torch.testing.assert_close(
                getattr(other, name), own, rtol=1e-4, atol=1e-6 * own.abs().max().item()
            )
    masks = [fisher.select(each, 0.5, model.config, kind) for each in (first, *others)]
    assert all(each == masks[0] for each in masks)


@every_kind
def test_repairs_and_curves_do_not_depend_on_it(kind):
    model = tiny_model("clip").double()
    dense, found = Tower.of(model, kind), []
    mask = some(dense)
    importance = recover.scores(model, IMAGES, tower=kind)
    for size in SIZES:
        images = in_batches(size)
        weights = token_weights(dense, images)
        smaller = Tower.of(prune(model, mask, kind), kind)
        repairs = repair_tower(dense, smaller, images, weights=weights)
        moments = dense_moments(dense, images.batches(), weights)
        curves = measure_curves(dense, importance, moments, images.first(13))
        losses = [loss for curve in curves for loss in curve.losses]
        errors = [each.error_after for each in repairs]
        found.append([embedding_loss(dense, smaller, UNSEEN), *errors, *losses])
    for other in found[1:]:
        assert other == pytest.approx(found[0], rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("rule", ["fisher", "recover"])
def test_commands_write_the_same_mask(clip_directory, folder, tmp_path, rule):
    main, options = {
        "fisher": (fisher.main, fisher.FisherOptions),
        "recover": (recover.main, recover.RecoverOptions),
    }[rule]
    masks = []
    for size in sweep((1, 5, 32), (5, 32)):
        output = tmp_path / str(size)
        flags = f"--model {clip_directory} --corpus folder --corpus-dir {folder} --samples 14"
        flags += f" --repair-samples 12 --batch-size {size} --output {output}"
        flags += " --curve-samples 7" if rule == "recover" else ""
        run_command(main, options, f"compress.{rule}", flags.split())
        masks.append(Mask.load(output / "mask.safetensors"))
    assert len(masks) > 1
    assert all(each == masks[0] for each in masks)


@given(images=st.integers(1, 500), size=st.integers(1, 600))
def test_an_image_is_told_from_the_same_others_and_from_one_at_least(images, size):
    groups = _shares(range(images), CONTRAST)
    assert [row for group in groups for row in group] == list(range(images))
    assert min(map(len, groups)) > 1 or images == 1
    for group in groups:
        parts = _shares(group, size)
        assert [row for part in parts for row in part] == list(group)
        assert max(map(len, parts)) <= min(size, CONTRAST)
