import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import CLIPVisionConfig

from compress.calibrating.importance import Importance, MaskGradients
from compress.errors import UserError
from compress.sensitivity import mean_sensitivity, select, select_all_but_one

CONFIG = CLIPVisionConfig(
    hidden_size=16,
    intermediate_size=8,
    num_hidden_layers=3,
    num_attention_heads=4,
    image_size=8,
    patch_size=4,
)


def importance(seed: int) -> Importance:
    generator = torch.Generator().manual_seed(seed)
    return Importance(torch.rand(3, 4, generator=generator), torch.rand(3, 8, generator=generator))


def test_scores_are_mean_absolute_gradients_with_unit_norm_in_each_layer():
    heads, neurons = torch.randn(9, 3, 4), torch.randn(9, 3, 8)
    found = mean_sensitivity(
        [MaskGradients(heads[:5], neurons[:5]), MaskGradients(heads[5:], neurons[5:])]
    )
    mean = heads.abs().mean(0)
    torch.testing.assert_close(found.heads, mean / mean.norm(dim=1, keepdim=True))
    torch.testing.assert_close(found.neurons.norm(dim=1), torch.ones(3))


@given(seed=st.integers(0, 10**6), count=st.integers(0, 12))
def test_the_lowest_heads_go_and_every_neuron_stays(seed, count):
    scores = importance(seed)
    mask = select(scores, count, CONFIG)
    assert int((~mask.heads).sum()) == count
    assert mask.neurons.all()
    if 0 < count < 12:
        assert scores.heads[~mask.heads].max() <= scores.heads[mask.heads].min()


@pytest.mark.parametrize("count", [-1, 13])
def test_more_heads_than_there_are_are_refused(count):
    with pytest.raises(UserError, match="the vision tower has 12"):
        select(importance(0), count, CONFIG)


def test_all_but_one_cuts_the_layer_with_the_best_head_and_scores_anew():
    seen = []

    def score(mask):
        seen.append(mask)
        heads = torch.tensor([[1.0, 2, 3, 4], [5, 9, 6, 7], [1, 1, 8, 1]])
        if len(seen) == 2:  # the masked tower's scores point elsewhere
            heads[0, 1] = 20.0
        return Importance(heads, torch.ones(3, 8))

    mask = select_all_but_one(score, 6, CONFIG)
    assert mask.heads.tolist() == [
        [False, True, False, False],
        [False, True, False, False],
        [True, True, True, True],
    ]
    assert [int(each.heads.sum()) for each in seen] == [12, 9]


@pytest.mark.parametrize("count", [4, 12])
def test_all_but_one_takes_only_whole_layers(count):
    with pytest.raises(UserError, match="3 heads at a time"):
        select_all_but_one(lambda mask: importance(0), count, CONFIG)
