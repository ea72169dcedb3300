import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from transformers import CLIPVisionConfig

from pruning_mechanism import Mask, TowerError


def config(layers=3, heads=4, neurons=24):
    return CLIPVisionConfig(
        hidden_size=8 * heads,
        intermediate_size=neurons,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        image_size=16,
        patch_size=4,
    )


@st.composite
def masks(draw):
    layers, heads, neurons = (draw(st.integers(1, 5)) for _ in range(3))
    bits = draw(
        st.lists(
            st.booleans(), min_size=layers * (heads + neurons), max_size=layers * (heads + neurons)
        )
    )
    bits = torch.tensor(bits)
    return Mask(
        bits[: layers * heads].view(layers, heads), bits[layers * heads :].view(layers, neurons)
    )


@st.composite
def slim_masks(draw):
    """Masks with head dimensions too, or with only one kind of them."""
    mask, dims = draw(masks()), []
    for _ in range(2):
        bits = torch.tensor(draw(st.lists(st.booleans(), min_size=8, max_size=8)))
        bits[draw(st.integers(0, 7))] = True
        dims.append(draw(st.sampled_from([None, bits.expand(len(mask.heads), 8)])))
    return Mask(mask.heads, mask.neurons, *dims)


@given(mask=st.one_of(masks(), slim_masks()))
def test_save_then_load_gives_the_same_mask(mask, tmp_path_factory):
    path = tmp_path_factory.mktemp("mask") / "mask.safetensors"
    mask.save(path)
    assert Mask.load(path) == mask


def test_masks_differ_if_one_unit_differs():
    one = Mask.dense(config())
    heads = one.heads.clone()
    heads[1, 2] = False
    assert one != Mask(heads, one.neurons)


@given(mask=st.one_of(masks(), slim_masks()))
def test_mac_fraction_is_the_sum_of_what_its_units_cost(mask):
    shape = config(len(mask.heads), mask.heads.shape[1], mask.neurons.shape[1])
    n, d, h = 17, shape.hidden_size, 8
    head, neuron = 3 * n * d * h + 2 * n * n * h + n * h * d, 2 * n * d
    query_key, value = 2 * n * d + n * n, n * d + n * n + n * d  # of one dimension of a head
    kept = int(mask.neurons.sum()) * neuron
    for layer, heads in enumerate(mask.heads.sum(1).tolist()):
        a, v = (
            h if dims is None else int(dims[layer].sum())
            for dims in (mask.qk_dims, mask.value_dims)
        )
        kept += heads * (a * query_key + v * value)
    dense = mask.heads.numel() * head + mask.neurons.numel() * neuron
    assert mask.mac_fraction(shape) == pytest.approx(kept / dense, rel=1e-12)


def test_numbers_load_as_a_mask_where_non_zero_means_keep(tmp_path):
    heads, neurons = torch.tensor([[0.0, 1.3]]), torch.tensor([[-0.2, 0.0, 1.0]])
    save_file({"heads": heads, "neurons": neurons}, tmp_path / "m.safetensors")
    mask = Mask.load(tmp_path / "m.safetensors")
    assert mask.heads.tolist() == [[False, True]]
    assert mask.neurons.tolist() == [[True, False, True]]


@pytest.mark.parametrize("content", [b"", b"no tensors", None])
def test_a_file_that_is_no_mask_is_refused_by_name(tmp_path, content):
    path = tmp_path / "m.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TowerError, match=r"m\.safetensors is not a mask"):
        Mask.load(path)


def test_a_file_without_heads_is_refused(tmp_path):
    save_file({"neurons": torch.ones(1, 2)}, tmp_path / "m.safetensors")
    with pytest.raises(TowerError, match="heads"):
        Mask.load(tmp_path / "m.safetensors")


def test_a_mask_of_another_tower_is_refused():
    with pytest.raises(ValueError, match=r"heads are \[2, 4\], the tower's \[3, 4\]"):
        Mask.dense(config(layers=2)).check(config(layers=3))


def test_a_mask_holds_booleans_of_equally_many_layers():
    with pytest.raises(ValueError, match="boolean"):
        Mask(torch.ones(1, 2), torch.ones(1, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="layers"):
        Mask(torch.ones(1, 2, dtype=torch.bool), torch.ones(2, 2, dtype=torch.bool))


def test_a_layer_with_heads_keeps_a_dimension_of_each_kind():
    heads, neurons = torch.tensor([[True], [False]]), torch.ones(2, 3, dtype=torch.bool)
    some, none = torch.eye(2, dtype=torch.bool), torch.zeros(2, 2, dtype=torch.bool)
    upper = torch.tensor([[True, True], [False, False]])
    assert Mask(heads, neurons, upper, upper).qk_dims is upper
    with pytest.raises(ValueError, match="layer 0 keeps heads, but none of their qk_dims"):
        Mask(heads, neurons, qk_dims=none)
    with pytest.raises(ValueError, match="layer 0 keeps heads, but none of their value_dims"):
        Mask(heads, neurons, some, none)


def test_head_dimensions_of_another_tower_are_refused():
    dense = Mask.dense(config())
    dims = torch.ones(3, 7, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"value_dims are \[3, 7\], the tower's \[3, 8\]"):
        Mask(dense.heads, dense.neurons, value_dims=dims).check(config())


def test_masks_differ_if_one_dimension_differs():
    dense = Mask.dense(config())
    dims = torch.ones(3, 8, dtype=torch.bool)
    fewer = dims.clone()
    fewer[1, 4] = False
    assert Mask(dense.heads, dense.neurons, dims) != Mask(dense.heads, dense.neurons, fewer)


@pytest.mark.parametrize(("name", "fraction"), [("0.65", 0.650), ("0.40", 0.400), ("0.25", 0.256)])
def test_published_masks_cost_what_their_names_say(shared, name, fraction):
    mask = Mask.load(shared / "masks" / f"vit-b16-mac{name}.safetensors")
    assert round(mask.mac_fraction(CLIPVisionConfig(patch_size=16)), 3) == fraction
