"""A text tower is pruned like a vision tower, beside it or alone."""

from itertools import cycle, product

import pytest
import torch
from transformers import CLIPVisionModelWithProjection

from pruning_mechanism import (
    Mask,
    Shape,
    Tower,
    TowerError,
    is_pruned,
    load,
    macs,
    parameters,
    prune,
)
from tests.lanes import sweep
from tests.pruning_mechanism.conftest import (
    CONTEXT,
    END,
    TOWERS,
    embeddings,
    random_mask,
    tiny_inputs,
    tiny_model,
)

WITH_TEXT = ("clip", "metaclip_2", "siglip")
each_family = pytest.mark.parametrize("family", WITH_TEXT)


ORDERS = (("vision", "text"), ("text", "vision"))


@pytest.mark.parametrize(
    ("family", "order"),
    sweep(product(WITH_TEXT, ORDERS), list(zip(WITH_TEXT, cycle(ORDERS), strict=False))),
)
def test_both_towers_may_be_pruned_one_after_the_other(family, order, tmp_path):
    dense = tiny_model(family)
    masks = {"vision": random_mask(1), "text": random_mask(2)}
    model = dense
    for tower in order:
        assert not is_pruned(model, tower)
        model = prune(model, masks[tower], tower)
        assert is_pruned(model, tower)
    model.save_pretrained(tmp_path)
    for tower, mask in masks.items():
        alone = prune(dense, mask, tower)
        assert torch.equal(embeddings(model, tower), embeddings(alone, tower))
        assert torch.equal(embeddings(load(tmp_path), tower), embeddings(alone, tower))


@each_family
def test_pruning_one_tower_leaves_the_other_as_it_is(family):
    dense = tiny_model(family)
    smaller = prune(dense, random_mask(3), "text")
    assert torch.equal(embeddings(smaller), embeddings(dense))
    assert not is_pruned(smaller)
    assert macs(smaller) == macs(dense)


def test_a_text_tower_is_not_pruned_twice():
    model = prune(tiny_model("clip"), random_mask(4), "text")
    with pytest.raises(TowerError, match="pruned already"):
        prune(model, random_mask(4), "text")


@pytest.mark.parametrize("family", ["altclip", "chinese_clip"])
def test_a_text_tower_that_does_not_fit_says_which_do(family):
    with pytest.raises(
        TowerError, match=r"normalises after its sublayers.*CLIP, MetaCLIP 2, SigLIP"
    ):
        prune(tiny_model(family), random_mask(5), "text")


def test_a_vision_tower_alone_has_no_text_tower():
    alone = CLIPVisionModelWithProjection(tiny_model("clip").config.vision_config)
    with pytest.raises(TowerError, match="no text tower"):
        Tower.of(alone, "text")


@pytest.mark.parametrize("family", ["clip", "metaclip_2"])
def test_padding_does_not_change_the_embedding_of_a_text(family):
    tower, inputs = Tower.of(tiny_model(family), "text"), tiny_inputs("text")
    ends = (inputs["input_ids"] == END).int().argmax(1, keepdim=True)
    padded = inputs | {"attention_mask": (torch.arange(CONTEXT) <= ends).long()}
    with torch.no_grad():
        torch.testing.assert_close(tower.embeddings(inputs), tower.embeddings(padded))


def test_a_tower_that_reads_its_padding_ignores_an_attention_mask():
    tower, inputs = Tower.of(tiny_model("siglip"), "text"), tiny_inputs("text")
    ignored = inputs | {"attention_mask": torch.zeros_like(inputs["input_ids"])}
    assert torch.equal(tower.embeddings(inputs), tower.embeddings(ignored))


@each_family
def test_the_valid_tokens_are_those_that_the_embedding_depends_on(family):
    tower, inputs = Tower.of(tiny_model(family), "text"), tiny_inputs("text")
    entered = tower.embed(inputs).detach().requires_grad_()
    hidden = entered
    for sublayer in tower.sublayers:
        hidden = sublayer(hidden)
    tower.project(hidden, inputs).square().sum().backward()
    reached = entered.grad.abs().sum(-1) > 0
    valid = tower.valid(inputs)
    assert torch.equal(reached, torch.ones_like(reached) if valid is None else valid)
    assert Tower.of(tower.model).valid(tiny_inputs("vision")) is None


def test_an_embedding_off_the_end_of_a_text_needs_the_text():
    tower = Tower.of(tiny_model("clip"), "text")
    hidden = tower.embed(tiny_inputs("text"))
    with pytest.raises(TypeError, match="takes what `tokenise` gives, found NoneType"):
        tower.project(hidden)


def test_an_early_clip_reads_the_highest_token():
    """Its configuration says that texts end with token 2, which they do not."""
    model, inputs = tiny_model("clip"), tiny_inputs("text")
    model.config.text_config.eos_token_id = 2
    early = type(model)(model.config).eval()
    early.load_state_dict(model.state_dict())
    tower = Tower.of(early, "text")
    with torch.no_grad():
        hidden = tower.embed(inputs)
        for sublayer in tower.sublayers:
            hidden = sublayer(hidden)
        found, expected = tower.project(hidden, inputs), tower.embeddings(inputs)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(tower.valid(inputs).sum(1) - 1, inputs["input_ids"].argmax(1))
    assert not torch.allclose(expected, embeddings(model, "text"), atol=1e-3)


@each_family
def test_a_mask_of_the_text_tower_knows_its_size(family):
    model = tiny_model(family)
    model.config.text_config.num_attention_heads = 2
    assert Mask.dense(model.config, "text").heads.shape == (3, 2)
    assert Shape.of(model.config, tower="text").tokens == CONTEXT
    with pytest.raises(ValueError, match=r"heads are \[3, 4\], the tower's \[3, 2\]"):
        prune(model, random_mask(6), "text")


@each_family
def test_parameters_are_those_of_the_tower(family):
    model = tiny_model(family)
    text = sum(p.numel() for n, p in model.named_parameters() if n.startswith("text_"))
    assert parameters(model, "text") == text
    assert parameters(prune(model, random_mask(7), "text"), "text") < text


@pytest.mark.parametrize(("family", "tower"), TOWERS)
def test_an_embedding_depends_on_the_pooled_tokens_alone(family, tower):
    part, inputs = Tower.of(tiny_model(family), tower), tiny_inputs(tower)
    hidden = part.embed(inputs).detach().requires_grad_()
    gradient = torch.autograd.grad(part.project(hidden, inputs).square().sum(), hidden)[0]
    reached = gradient.abs().sum(2) > 0
    pooled = part.pooled(inputs, hidden.shape[1])
    assert reached.all() if pooled is None else torch.equal(reached, pooled)
