"""A token rule from outside the package, written with public names only, is a rule like any other.

`DropSecond` is the walk through adding one: a dataclass of its configuration entries, with a check,
a token count and what it does.
"""

import json
import os
import pickle
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from cascade import Stage
from pruning_mechanism import (
    Change,
    Mask,
    Reduction,
    Shape,
    TokenRule,
    Tokens,
    Tower,
    TowerError,
    image_embeddings,
    load,
    mac_fraction,
    macs,
    prune,
    reduce,
    register_token_rule,
    save,
)
from pruning_mechanism.groups import patch_groups
from tests.conftest import tiny_clip, tiny_processor
from tests.fresh import python
from tests.lanes import sweep

ROOT = Path(__file__).resolve().parents[2]
PIXELS = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@register_token_rule
@dataclass(frozen=True)
class DropSecond(TokenRule):
    """Drop every second patch after the attention of one layer, counted from 1."""

    dropped_after: int | None = None

    def check(self, config, beside) -> None:
        layers = config.num_hidden_layers
        if not isinstance(self.dropped_after, int) or not 1 <= self.dropped_after <= layers:
            raise ValueError(f"dropped_after {self.dropped_after!r}: the tower has {layers} layers")

    def left(self, layer: int, tokens: int) -> int:
        return 1 + tokens // 2 if layer == self.dropped_after - 1 else tokens

    def change(self, layer: int, tokens: Tokens) -> Change:
        return drop_second


def drop_second(hidden: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    stay = [0, *range(1, hidden.shape[1], 2)]
    return hidden[:, stay], sizes[:, stay]


@register_token_rule
@dataclass(frozen=True)
class UpperRows(TokenRule):
    """Embed the upper rows of patches only, and read the embedding off the mean of all tokens."""

    upper_rows: int | None = None

    def patches(self, patches: int) -> int:
        return 4 * self.upper_rows

    def chooser(self, config):
        return partial(first_patches, count=4 * self.upper_rows)

    def pool(self, root, hidden: Tensor, sizes: Tensor | None) -> Tensor:
        return root.post_layernorm(hidden.mean(1))


def first_patches(pixels: Tensor, count: int) -> Tensor:
    return torch.arange(count, device=pixels.device)


@pytest.fixture
def model():
    return reduce(tiny_clip(), Reduction(dropped_after=2))


@torch.no_grad()
def embeddings(model) -> Tensor:
    return image_embeddings(model, PIXELS)


def by_hand(model) -> Tensor:
    """The dense tower with the patches left out between the sublayers of layer 2."""
    tower = Tower.of(model)
    with torch.no_grad():
        hidden = tower.embed(PIXELS)
        for number, part in enumerate(tower.sublayers):
            hidden = part(hidden)
            if number == 2:
                hidden = hidden[:, [0, *range(1, 17, 2)]]
        return tower.project(hidden)


def test_the_tower_does_what_the_rule_says(model):
    torch.testing.assert_close(embeddings(model), by_hand(tiny_clip()), atol=1e-5, rtol=1e-5)


def test_a_rule_may_act_on_the_patches_that_enter_and_on_what_leaves(tmp_path):
    model, tower = reduce(tiny_clip(), Reduction(upper_rows=2)), Tower.of(tiny_clip())
    with torch.no_grad():
        hidden = tower.embed(PIXELS)[:, : 1 + 2 * 4]
        for part in tower.sublayers:
            hidden = part(hidden)
        expected = tower.final(tower.root.post_layernorm(hidden.mean(1)))
    torch.testing.assert_close(embeddings(model), expected, atol=1e-5, rtol=1e-5)
    assert Shape.of(model.config).tokens == 9
    assert (patch_groups(model, PIXELS) >= 0).sum(1).tolist() == [8] * 3
    save(model, tmp_path, tiny_processor())
    assert torch.equal(embeddings(load(tmp_path)), embeddings(model))


def test_its_macs_are_those_of_the_matrix_products_that_are_computed(model):
    model.set_attn_implementation("eager")
    model.requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        image_embeddings(model, PIXELS[:1])
    assert counter.get_total_flops() // 2 == macs(model).tower < macs(tiny_clip()).tower
    asked = Reduction(dropped_after=2)
    assert mac_fraction(tiny_clip().config, asked) == macs(model).fraction < 1


def test_it_comes_back_from_disk(model, tmp_path):
    save(model, tmp_path, tiny_processor())
    config = json.loads((tmp_path / "config.json").read_text())["vision_config"]
    assert (config["dropped_after"], config["token_rules"]) == (2, ["DropSecond"])
    loaded = load(tmp_path)
    assert torch.equal(embeddings(loaded), embeddings(model))
    assert macs(loaded) == macs(model)
    assert torch.equal(embeddings(pickle.loads(pickle.dumps(loaded))), embeddings(model))


def test_it_is_checked_where_it_is_asked_for_and_where_it_is_loaded(model, tmp_path):
    with pytest.raises(TowerError, match="dropped_after 4: the tower has 3 layers"):
        reduce(tiny_clip(), Reduction(dropped_after=4))
    save(model, tmp_path, tiny_processor())
    file = tmp_path / "config.json"
    file.write_text(file.read_text().replace('"dropped_after": 2', '"dropped_after": "2"'))
    with pytest.raises(TowerError, match="dropped_after '2'"):
        load(tmp_path)


def test_it_goes_with_pruning_and_other_rules():
    mask = Mask.dense(tiny_clip().config)
    mask.heads[1] = False
    made = reduce(prune(tiny_clip(), mask), Reduction(dropped_after=2, layers=2))
    made = reduce(made, Reduction(kept_patches=12, merged_per_layer=(2, 3)))
    assert made.config.vision_config.token_rules == ["DropSecond"]
    tower = Tower.of(made)
    with torch.no_grad():
        hidden, sizes = tower.embed(PIXELS), None
        for layer, left in enumerate((13 - 2, 1 + (11 - 3) // 2)):
            hidden, sizes = tower.root.through(layer, hidden, sizes)
            assert hidden.shape[1] == left
    assert embeddings(made).isfinite().all()


def test_what_knows_no_rule_follows_it(model):
    """Pictures, stages and exports."""
    groups = patch_groups(model, PIXELS)
    assert groups.tolist() == [[place // 2 if place % 2 == 0 else 7 for place in range(16)]] * 3
    names = {Stage(each, tiny_processor()).name for each in (model, tiny_clip())}
    assert len(names) == 2
    exported = torch.export.export(model.vision_model, (PIXELS,)).module()
    with torch.no_grad():
        expected = model.vision_model(PIXELS).pooler_output
        torch.testing.assert_close(exported(PIXELS).pooler_output, expected)


@pytest.mark.parametrize(
    "how", sweep(["load(path)", "AutoModel.from_pretrained(path)"], ["load(path)"])
)
def test_a_program_that_does_not_know_the_rule_is_told_its_name(model, tmp_path, how):
    save(model, tmp_path, tiny_processor())
    program = (
        "import sys; from transformers import AutoModel; from pruning_mechanism import load\n"
        f"path = sys.argv[1]; {how}"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    found = python("-c", program, tmp_path, env=environment, check=False)
    assert found.returncode
    assert "token rules that aren't known here, DropSecond" in found.stderr.splitlines()[-1]


def test_rules_that_would_take_each_others_entries_are_refused():
    @dataclass(frozen=True)
    class Other(TokenRule):
        merged_per_layer: list[int] | None = None

    with pytest.raises(ValueError, match="Other and Merging both have merged_per_layer"):
        register_token_rule(Other)

    @dataclass(frozen=True)
    class Wide(TokenRule):
        hidden_size: int | None = None

    with pytest.raises(ValueError, match="Wide takes hidden_size, which is an entry of every"):
        register_token_rule(Wide)
    with pytest.raises(ValueError, match="has no fields"):
        register_token_rule(type("Bare", (TokenRule,), {}))


def test_a_setting_that_no_rule_takes_is_refused_by_name():
    with pytest.raises(TypeError, match=r"no token rule takes merged; .*merged_per_layer"):
        Reduction(merged=3)
    with pytest.raises(AttributeError):
        Reduction().merged  # noqa: B018


def test_reductions_are_equal_by_what_they_ask_for():
    assert Reduction(layers=2, patch_seed=None) == Reduction(layers=2) != Reduction(layers=3)
    assert (Reduction(layers=2).layers, Reduction(layers=2).image_size) == (2, None)
    assert repr(Reduction(layers=2)) == "Reduction(layers=2)"
    assert pickle.loads(pickle.dumps(Reduction(layers=2))) == Reduction(layers=2)


def test_a_rule_that_leaves_other_tokens_than_it_counts_is_refused(monkeypatch, model):
    monkeypatch.setattr(DropSecond, "left", lambda self, layer, tokens: 5 if layer else tokens)
    with pytest.raises(ValueError, match="DropSecond leaves 9 tokens in layer 2, but said that 5"):
        embeddings(model)
