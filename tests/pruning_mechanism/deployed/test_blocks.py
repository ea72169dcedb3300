"""Latency tables by differences of towers, against a clock that counts operations.

Such a clock is exact: what a tower takes is the sum of its parts, and linear in its units. So the
table must say of every tower just what that clock does.
"""

import sys
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pruning_mechanism import (
    Mask,
    Reduction,
    Tower,
    TowerError,
    image_embeddings,
    macs,
    prune,
    reduce,
)
from pruning_mechanism.costs.conditions import computed_in_full
from pruning_mechanism.costs.latency import LatencyTable
from pruning_mechanism.costs.latency_sizes import uniform_mask
from pruning_mechanism.deployed import blocks
from pruning_mechanism.deployed.block_table import Size, Sizes, table_of
from pruning_mechanism.deployed.blocks import measure_blocks, merging_in_blocks
from pruning_mechanism.deployed.seconds import measure, measured_share
from pruning_mechanism.deployed.tower import Deployed, check_deployable
from tests.conftest import tiny_clip
from tests.lanes import examples, sweep, thorough_only
from tests.pruning_mechanism.costs.test_latency import CONDITIONS
from tests.pruning_mechanism.modeling.test_class_token import Flops

SIZES = Sizes.of(12, 3072, 64)
LAYERS, BLOCK = 12, 2
MEASURED = 1 + len(SIZES.measured())  # with the whole dense tower


def operations(work) -> float:
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


@pytest.fixture
def counting(monkeypatch):
    """The clock counts operations in place of seconds."""

    def turns(works, repetitions, _device, progress=None):
        return {name: [operations(work)] * repetitions for name, work in works.items()}

    monkeypatch.setattr(blocks, "in_turn", turns)


def counted(model, batch_size: int) -> float:
    tower = Deployed(model, dtype="float32")
    return operations(lambda: tower.embed(tower.noise(batch_size))) / batch_size


def machine(
    size: Size | None,
    sublayer=(0.02, 0.03),
    unit=(0.3, 0.5),
    saved=(0.1, 0.05, 0.2),
    empty=0.0,
) -> float:
    """Seconds of a tower on a machine whose parts add up; None: the whole dense one."""
    layers = LAYERS if size is None or size.whole else BLOCK
    size = size or SIZES.dense
    attention = (size.heads > 0) * sublayer[0] + unit[0] * size.heads / 12
    keys, values = size.query_key_size < 64, size.value_size < 64
    attention -= saved[2] if keys and values else saved[0] * keys + saved[1] * values
    mlp = (size.neurons > 0) * sublayer[1] + unit[1] * size.neurons / 3072
    return 0.7 + layers * (attention + mlp + empty)


def shares_on(seconds) -> dict[Size | None, float]:
    return {size: seconds(size) / seconds(None) for size in (None, *SIZES.measured())}


def made(shares) -> LatencyTable:
    return table_of(SIZES, shares, LAYERS, BLOCK, CONDITIONS, 0.01)


def test_a_machine_whose_parts_add_up_is_told_apart_into_them():
    table, whole = made(shares_on(machine)), machine(None)
    assert table.class_token is None
    assert table.outside * whole == pytest.approx(0.7)
    heads, widths = np.arange(1, 13), np.array([64, 768, 1000, 2048, 3072])
    np.testing.assert_allclose(table.attention(heads) * whole, 0.02 + 0.3 * heads / 12)
    np.testing.assert_allclose(table.mlp(widths) * whole, 0.03 + 0.5 * widths / 3072)
    assert table.attention(0) < 1e-4 > table.mlp(0)
    narrow = table.attention([12, 12, 12], [8, 64, 8], [64, 8, 8]) * whole
    np.testing.assert_allclose(narrow, [0.22, 0.27, 0.12])
    assert table.tower([12] * 12, [3072] * 12) == pytest.approx(1.0)
    assert table.tower([6] * 12, [768] * 12) == pytest.approx(
        (0.7 + 12 * (0.02 + 0.15 + 0.03 + 0.125)) / whole
    )


def test_what_a_layer_without_units_takes_is_told_from_what_stands_around_the_layers():
    table = made(shares_on(partial(machine, empty=0.04)))
    whole = machine(None, empty=0.04)
    assert table.outside * whole == pytest.approx(0.7)
    for kept in ((0, 0), (1, 64), (0, 768), (12, 3072)):
        one = Size(*kept, 64, 64, whole=True)
        found = table.tower([kept[0]] * LAYERS, [kept[1]] * LAYERS) * whole
        assert found == pytest.approx(machine(one, empty=0.04))


def test_one_unit_may_take_more_than_its_share():
    """A machine on which sublayers take the same up to three heads or 768 neurons."""

    def steep(size):
        layers = LAYERS if size is None or size.whole else BLOCK
        size = size or SIZES.dense
        heads, neurons = max(size.heads, 3) / 12, max(size.neurons, 768) / 3072
        return 0.7 + layers * ((size.heads > 0) * heads + (size.neurons > 0) * neurons)

    sizes = [size for size in SIZES.measured() if size.query_key_size == size.value_size == 64]
    table = made({size: steep(size) / steep(None) for size in (None, *sizes)})
    for heads, neurons in ((1, 64), (2, 256), (3, 768), (12, 3072)):
        wanted = steep(Size(heads, neurons, 64, 64, whole=True)) / steep(None)
        found = table.tower([heads] * LAYERS, [neurons] * LAYERS)
        assert found == pytest.approx(wanted)


def test_a_small_tower_that_takes_less_than_its_parts_corrects_the_sums():
    """Of a tower of few layers more lies in the cache: it takes a tenth less here."""

    def cached(size):
        return machine(size) * (1.0 if size is None else 0.9)

    table = made(shares_on(cached))
    assert table.wholes[-1] == (1.0, 1.0)
    for size in (SIZES.nothing, SIZES.few, SIZES.dense):
        parts = table.outside + BLOCK * (table.attention(size.heads) + table.mlp(size.neurons))
        found = np.interp(parts, *table._line_of_wholes)
        assert found == pytest.approx(cached(size) / cached(None), rel=1e-3)


@settings(max_examples=examples(25, 200))
@given(st.lists(st.floats(-0.3, 0.3), min_size=MEASURED, max_size=MEASURED))
def test_noise_makes_no_part_negative_and_no_size_cheaper_than_a_smaller_one(noise):
    exact = shares_on(machine)
    table = made({size: exact[size] * (1 + n) for size, n in zip(exact, noise, strict=True)})
    assert min(table.outside, *table.heads, *table.neurons, *sum(table.sized, ())) > 0
    assert np.all(np.diff(table.attention(np.arange(13))) >= 0)
    assert np.all(np.diff(table.mlp(np.arange(0, 3073, 64))) >= 0)
    assert table.dense == pytest.approx(1.0)
    assert 0 < table.budget(0.3) <= 1.0
    assert table.preferred_multiple == 64  # what was not measured is not trusted


@pytest.mark.parametrize("measured", [measure_blocks, merging_in_blocks])
def test_the_last_layer_of_small_towers_counts_in_full(measured, counting, request):
    """A clock that sets no hooks, as that of seconds, says what one says that watches all."""
    tower = Deployed(tiny_clip(num_hidden_layers=4), dtype="float32")
    seen = measured(tower, batch_size=2)
    request.getfixturevalue("as_run")
    found = measured(tower, batch_size=2)
    if measured is measure_blocks:
        found, seen = (
            np.array([table.outside, *table.heads, *table.neurons]) for table in (found, seen)
        )
    np.testing.assert_allclose(found, seen)


@pytest.fixture
def as_run(monkeypatch):
    """The clock counts operations and sets no hooks, so towers run as they do elsewhere."""

    def unseen(work) -> float:
        with sdpa_kernel(SDPBackend.MATH), Flops() as counted:
            work()
        return float(counted.total)

    monkeypatch.setitem(globals(), "operations", unseen)


def uneven(layers: int, rng) -> Mask:
    """A mask of uneven heads, neurons and head sizes."""
    kept = (*rng.integers(0, (5, 25), (layers, 2)).T, *rng.choice([1, 4], (2, layers)))
    of = zip(kept, (4, 24, 4, 4), strict=True)
    return Mask(*(torch.arange(units) < torch.from_numpy(counts)[:, None] for counts, units in of))


def kept_of(mask: Mask) -> list[list[int]]:
    return [mask.tensors[name].sum(1).tolist() for name in MASKED]


MASKED = ("heads", "neurons", "qk_dims", "value_dims")
PLACES = {"whole": None, "kept patches": Reduction(kept_patches=5), "exit": Reduction(layers=3)}


@pytest.mark.parametrize("class_token", [False, True])
@pytest.mark.parametrize("place", PLACES)
def test_the_sum_of_parts_is_what_the_clock_says_of_a_pruned_tower(
    counting, as_run, place, class_token
):
    """With the class token alone in the last layer, or with all tokens: as the tower is read."""
    model = tiny_clip(num_hidden_layers=4)
    if PLACES[place]:
        model = reduce(model, PLACES[place])
    tower = Deployed(model, dtype="float32")
    table = measure_blocks(tower, batch_size=2, class_token=class_token)
    assert table.dense == pytest.approx(counted(computed_in_full(model), 2))
    rng = np.random.default_rng(0)
    for _ in range(3):
        mask = uneven(table.layers, rng)
        pruned = prune(model, mask)
        assert Tower.of(pruned).reads_class_token
        found = counted(pruned if class_token else computed_in_full(pruned), 2)
        assert table.tower(*kept_of(mask)) == pytest.approx(found, rel=1e-3)


def test_what_the_last_layer_costs_is_less_for_the_class_token_alone(counting, as_run):
    model = tiny_clip(num_hidden_layers=2)  # no more layers than small towers have
    tower = Deployed(model, dtype="float32")
    table = measure_blocks(tower, batch_size=2, class_token=True)
    heads, neurons = range(1, 5), range(1, 25)
    assert np.all(table.class_token.attention(heads) < table.attention(heads))
    assert np.all(table.class_token.mlp(neurons) * 16.9 < table.mlp(neurons))  # of 17 tokens


def test_merging_takes_what_the_clock_says_beside_what_fewer_tokens_save(counting):
    model, two = tiny_clip(image_size=64), Reduction(layers=2)
    short = reduce(model, two)
    merging = reduce(short, Reduction(merged_per_layer=(1, 1)))
    found = merging_in_blocks(Deployed(model), batch_size=2)
    inner = counted(short, 2) - counted(prune(short, uniform_mask(2, (4, 24), (0, 0))), 2)
    saved = inner / 2 * (0.5 + 1.5) / 257
    assert found == pytest.approx((counted(merging, 2) - counted(short, 2) + saved) / 2, rel=1e-6)
    assert found > 0


def test_a_tower_that_is_pruned_already_has_no_table():
    mask = uniform_mask(3, (4, 24), (4, 24))
    mask.heads[0, 0] = False
    with pytest.raises(TowerError, match="layers are all alike"):
        measure_blocks(Deployed(prune(tiny_clip(), mask)), batch_size=1)


@pytest.mark.parametrize("runtime", sweep(["onnxruntime", "openvino"], ["onnxruntime"]))
def test_a_tower_gives_its_embeddings_where_it_runs_and_leaves_no_files(
    runtime, tmp_path, monkeypatch
):
    pytest.importorskip(runtime)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    model = tiny_clip(num_hidden_layers=1)
    tower = Deployed(model, runtime)
    pixels = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():  # as where contenders are timed
        found, wanted = tower.embed(pixels), image_embeddings(model, pixels)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    assert not list(tmp_path.iterdir())


@thorough_only
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "compile"])
@pytest.mark.parametrize("dtype", [None, "int8"])
def test_a_table_says_where_it_was_measured(runtime, dtype):
    if runtime != "compile":
        pytest.importorskip(runtime)
    if dtype:
        pytest.importorskip("nncf")
        if runtime == "compile":
            pytest.skip("torch computes nothing in int8 here")
    model = tiny_clip(num_hidden_layers=2)
    table = measure(Deployed(model, runtime, dtype), batch_size=2, repetitions=1)
    own = table.conditions
    assert (own.runtime, own.dtype) == (runtime, dtype or "float32")
    table.check(model.config)


def test_in_torch_a_table_is_measured_in_the_type_that_is_named():
    own = measure(Deployed(tiny_clip(), dtype="bfloat16"), batch_size=1, repetitions=1).conditions
    assert (own.runtime, own.dtype) == ("torch", "bfloat16")


def test_a_share_is_of_both_towers_where_they_run(monkeypatch):
    asked = []
    monkeypatch.setattr(
        Deployed,
        "embed",
        property(lambda tower: lambda pixels: asked.append((tower.runtime, pixels.shape[-1]))),
    )
    model, small = tiny_clip(), tiny_clip(image_size=8)
    tower = Deployed(model, "openvino", "bfloat16")
    assert measured_share(tower.like(small), tower, batch_size=2, repetitions=2) > 0
    assert asked == [("openvino", 8), ("openvino", 16)] * 3
    assert macs(small).encoder < macs(model).encoder


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (("openvino", "float32"), r"pip install 'clip-cascade\[openvino\]'"),
        (("torch", "int8"), "'torch' computes in float32 or bfloat16, not in int8"),
        (("onnxruntime", "bfloat16"), "not in bfloat16, which torch, compile and openvino do"),
        (("onnxruntime", None, "cuda"), "runs on the CPU here, not on cuda"),
        (("tensorrt", None), "runtime is one of 'torch'"),
    ],
)
def test_what_a_tower_cannot_be_put_into_is_one_line(how, said, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(TowerError, match=said):
        check_deployable(*how)


@pytest.mark.parametrize("dtype", ["float8", "int8"])
def test_seconds_of_towers_that_torch_computes_in_8_bits_are_refused_beforehand(dtype, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    with pytest.raises(TowerError, match=f"seconds in {dtype}.*bfloat16.*compile:{dtype}"):
        check_deployable("compile", dtype, "cuda")
