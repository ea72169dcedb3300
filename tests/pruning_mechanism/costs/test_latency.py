import json
import platform
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pruning_mechanism import Mask, Tower, TowerError, image_embeddings, macs, prune, sublayers
from pruning_mechanism.costs import latency_measurement
from pruning_mechanism.costs.latency import Conditions, LatencyTable
from pruning_mechanism.costs.latency_measurement import Seconds, measure
from pruning_mechanism.costs.latency_sizes import (
    Attention,
    measured_head_sizes,
    measured_widths,
    mixed_masks,
)
from pruning_mechanism.costs.sublayer_seconds import SublayerSeconds, largest_step
from tests.conftest import tiny_clip
from tests.lanes import thorough_only
from tests.pruning_mechanism.conftest import random_mask

CONDITIONS = Conditions(
    processor="abacus",
    device="cpu",
    dtype="float32",
    threads=1,
    batch_size=2,
    tokens=17,
    hidden=16,
    head_dim=4,
    torch="2.9",
    repetitions=3,
)
SLOWER = {1: 1.5, 2: 1.3, 4: 1.2, 8: 1.1, 16: 1.0, 32: 1.0, 64: 1.0}
"""How much slower than a multiple of 64 the machine of `made_table` computes other widths."""


def seconds_of_mlp(width: int) -> float:
    return (1 + width / 8) * SLOWER[int(np.gcd(width, 64))]


def made_table(dense: int = 1024, **changes) -> LatencyTable:
    widths = tuple(measured_widths(dense))
    table = LatencyTable(
        layers=3,
        outside=10.0,
        heads=(0.5, 2.0, 3.0, 4.0, 5.0),
        widths=widths,
        neurons=tuple(seconds_of_mlp(width) for width in widths),
        noise=0.01,
        conditions=CONDITIONS,
    )
    return replace(table, **changes)


def class_token_seconds() -> SublayerSeconds:
    """A tenth of `made_table`'s."""
    full = made_table()
    return SublayerSeconds(heads=full.heads, widths=full.widths, neurons=full.neurons).scaled(0.1)


@given(st.lists(st.integers(0, 1024), min_size=1))
def test_any_width_costs_what_the_line_says_times_the_penalty_of_its_multiple(widths):
    expected = [seconds_of_mlp(width) for width in widths]
    np.testing.assert_allclose(made_table().mlp(widths), expected, rtol=1e-9)


def test_between_measured_multiples_the_line_is_straight():
    table = made_table(widths=(0, 512, 1024), neurons=(1.0, 11.0, 13.0))
    assert table.mlp([0, 256, 512, 768, 1024]).tolist() == [1, 6, 11, 12, 13]


def test_a_dense_width_that_is_no_multiple_of_the_step_is_slower_than_the_line_like_others():
    table = made_table(dense=4296)
    assert (table.step, np.gcd(4296, 64)) == (64, 8)
    assert table.mlp([4295, 4296]) == pytest.approx([*map(seconds_of_mlp, (4295, 4296))])


def test_attention_costs_what_was_measured_for_each_number_of_heads():
    assert made_table().attention([[4, 0], [1, 1]]).tolist() == [[5.0, 0.5], [2.0, 2.0]]


@given(st.lists(st.floats(0.1, 10), min_size=5, max_size=5))
def test_more_heads_never_cost_less_and_the_mean_of_noise_stays(measured):
    found = made_table(heads=tuple(measured)).attention(range(5))
    assert (np.diff(found) >= 0).all()
    assert found.sum() == pytest.approx(sum(measured))
    if measured == sorted(measured):
        np.testing.assert_allclose(found, measured)


def test_sizes_of_heads_save_their_share_of_what_each_head_adds():
    table = made_table(head_sizes=(2, 4), sized=((1.4, 2.3), (3.2, 5.0)))  # without heads 0.5
    sizes = [2, 2, 4, 4], [2, 4, 2, 4]
    assert table.attention([4] * 4, *sizes) == pytest.approx([1.4, 2.3, 3.2, 5.0])
    share = (1.4 - 0.5) / (5 - 0.5)
    assert table.attention([0, 1, 2], [2] * 3, [2] * 3) == pytest.approx(
        [0.5, 0.5 + share * (2 - 0.5), 0.5 + share * (3 - 0.5)]
    )
    assert table.attention([4], [3], [4]) == pytest.approx([(2.3 + 5.0) / 2])
    assert table.tower([4] * 3, [0] * 3, [2, 4, 4], [2, 4, 4]) == pytest.approx(10 + 3 + 11.4)


@given(st.lists(st.floats(0.1, 10), min_size=14, max_size=14), st.integers(1, 4))
def test_larger_heads_never_cost_less(measured, heads):
    sized = np.array(measured[5:]).reshape(3, 3)
    table = made_table(
        heads=tuple(measured[:5]), head_sizes=(1, 2, 4), sized=tuple(map(tuple, sized))
    )
    sizes = np.meshgrid(range(1, 5), range(1, 5), indexing="ij")
    found = table.attention(np.full((4, 4), heads), *sizes)
    assert (np.diff(found, axis=0) >= -1e-12).all()
    assert (np.diff(found, axis=1) >= -1e-12).all()
    assert found[-1, -1] == pytest.approx(table.attention(heads))
    assert (found >= table.attention(0) - 1e-12).all()


def test_sizes_of_heads_that_were_not_measured_are_refused():
    with pytest.raises(ValueError, match="no seconds of heads of other sizes"):
        made_table().attention([1], [2], [2])


@given(st.integers(0, 10_000))
def test_more_neurons_never_cost_less_at_multiples_of_the_step(seed):
    table = made_table()
    noise = np.random.default_rng(seed).lognormal(0, 0.5, len(table.widths))
    noisy = np.array(table.neurons) * noise
    table = replace(table, neurons=tuple(noisy))
    found = table.mlp(np.arange(0, 1025, table.step))
    assert (np.diff(found) >= 0).all()
    assert (found > 0).all()


def test_a_tower_is_the_sum_of_its_sublayers_and_what_is_outside():
    heads, neurons = [0, 4, 2], [0, 1024, 333]
    sublayers_alone = sum([0.5, 5.0, 3.0]) + sum(map(seconds_of_mlp, neurons))
    assert made_table().tower(heads, neurons) == pytest.approx(10 + sublayers_alone)
    assert made_table().dense == made_table().tower([4] * 3, [1024] * 3)


def test_a_tower_of_other_depth_is_refused():
    with pytest.raises(ValueError, match="3 layers, got 2 numbers of heads and 3"):
        made_table().tower([1, 1], [1, 1, 1])


def test_a_budget_is_a_share_of_the_dense_towers_seconds():
    table = made_table()
    assert table.budget(1.0) == table.dense
    assert table.budget(0.5) == table.dense / 2


def test_the_sum_of_parts_is_read_off_along_the_line_through_whole_towers():
    table = made_table()
    none, half, dense = (
        table.parts([heads] * 3, [neurons] * 3) for heads, neurons in ((0, 0), (2, 512), (4, 1024))
    )
    assert dense == table.dense
    corrected = replace(table, wholes=((none, none), (half, 0.9 * half), (dense, dense)))
    assert corrected.tower([2] * 3, [512] * 3) == pytest.approx(0.9 * half)
    assert corrected.parts([2] * 3, [512] * 3) == half
    assert corrected.dense == dense
    assert corrected.budget(0.9 * half / dense) == pytest.approx(half)
    assert corrected.scaled(2).tower([2] * 3, [512] * 3) == pytest.approx(1.8 * half)


@given(st.lists(st.floats(0.2, 1.2), min_size=3, max_size=3), st.floats(0.01, 1.0))
def test_what_fits_the_budget_keeps_the_constraint_and_nothing_else_does(factors, share):
    table = made_table(neurons=tuple(1 + width / 8 for width in measured_widths(1024)))
    sums = np.linspace(table.parts([0] * 3, [0] * 3), table.dense, 4)
    wholes = zip(sums, [*np.multiply(factors, sums[:3]), sums[3]], strict=True)
    table = replace(table, wholes=tuple(wholes))
    constraint = table.least + share * (1 - table.least)
    allowed = table.budget(constraint)
    for width in range(0, 1025, 16):
        taken = table.tower([4] * 3, [width] * 3)
        if table.parts([4] * 3, [width] * 3) <= allowed:
            assert taken <= constraint * table.dense * (1 + 1e-9)
        else:
            assert taken >= constraint * table.dense * (1 - 1e-9)


def test_the_least_is_the_share_of_a_tower_without_units():
    table = made_table()
    assert table.least == table.tower([0] * 3, [0] * 3) / table.dense
    assert table.budget(table.least / 2) == pytest.approx(table.least * table.dense / 2)


@pytest.mark.parametrize("constraint", [0.0, -0.5, 1.01, float("nan")])
def test_a_constraint_outside_its_range_is_refused(constraint):
    with pytest.raises(ValueError, match=r"in \(0, 1\]"):
        made_table().budget(constraint)


@pytest.mark.parametrize("multiple", [1, 4, 16, 64])
def test_the_preferred_multiple_is_the_finest_that_is_never_slower(multiple):
    table = made_table()
    seconds = [(1 + width / 8) * (1.0 if width % multiple == 0 else 1.3) for width in table.widths]
    assert replace(table, neurons=tuple(seconds)).preferred_multiple == multiple


def test_a_fine_multiple_is_not_preferred_over_a_coarser_one_that_is_slow():
    table = made_table()
    slow = [
        seconds * (1.3 if np.gcd(width, 64) == 16 else 1) / SLOWER[int(np.gcd(width, 64))]
        for width, seconds in zip(table.widths, table.neurons, strict=True)
    ]
    assert replace(table, neurons=tuple(slow)).preferred_multiple == 32


def test_differences_within_the_noise_do_not_ask_for_rounding():
    table = made_table()
    close = [(1 + w / 8) * (1.01 if w % 64 else 1.0) for w in table.widths]
    assert replace(table, neurons=tuple(close)).preferred_multiple == 1


def test_scaling_multiplies_every_prediction():
    table = made_table(head_sizes=(2, 4), sized=((1.4, 2.3), (3.2, 5.0)))
    sizes = [1, 0, 4], [5, 1024, 0], [2, 4, 4], [4, 4, 2]
    assert table.scaled(3).tower(*sizes) == pytest.approx(3 * table.tower(*sizes))


def test_a_last_layer_for_the_class_token_alone_has_seconds_of_its_own():
    full, own = made_table(), class_token_seconds()
    table = replace(full, class_token=own)
    heads, neurons = [2, 0, 3], [64, 1024, 512]
    layers = zip(heads, neurons, (full, full, own), strict=True)
    expected = 10 + sum(of.attention(h) + of.mlp(n) for h, n, of in layers)
    assert table.parts(heads, neurons) == pytest.approx(float(expected))
    assert table.dense == full.dense  # the dense tower is computed for all tokens
    assert table.least < full.least
    assert table.scaled(3).tower(heads, neurons) == pytest.approx(3 * table.tower(heads, neurons))


@pytest.mark.parametrize("own", [None, "class token"])
def test_saved_and_loaded_a_table_is_the_same(tmp_path, own):
    table = made_table(head_sizes=(2, 4), sized=((1.4, 2.3), (3.2, 5.0)))
    table = replace(table, class_token=own and class_token_seconds())
    table.save(tmp_path / "latency.json")
    assert LatencyTable.load(tmp_path / "latency.json") == table


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda entries: "not JSON", "is not a latency table"),
        (lambda entries: "[]", "is not a latency table"),
        (lambda entries: json.dumps({"rows": []}), "is not a latency table: KeyError"),
        (lambda entries: json.dumps(entries | {"schema": 99}), "has schema 99"),
        (lambda entries: json.dumps(entries | {"colour": "red"}), "not a whole latency table"),
        (lambda entries: json.dumps(entries | {"conditions": {}}), "not a whole latency table"),
        (lambda entries: json.dumps(entries | {"class_token": {}}), "not a whole latency table"),
    ],
)
def test_a_file_that_is_no_table_is_refused_in_one_line(tmp_path, change, complaint):
    path = tmp_path / "latency.json"
    made_table().save(path)
    path.write_text(change(json.loads(path.read_text())))
    with pytest.raises(TowerError, match=complaint) as caught:
        LatencyTable.load(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(TowerError, match="is not a latency table"):
        LatencyTable.load(tmp_path / "nothing.json")


@pytest.mark.parametrize("neurons", [1, 7, 24, 768, 3072, 4304, 5120])
def test_the_measured_widths_run_from_none_to_all_and_stand_for_every_multiple(neurons):
    widths, step = measured_widths(neurons), largest_step(neurons)
    assert widths == sorted(set(widths))
    assert (widths[0], widths[-1]) == (0, neurons)
    assert {int(np.gcd(width, step)) for width in widths} >= {
        2**power for power in range(step.bit_length())
    }
    assert len(widths) <= 40


@pytest.mark.parametrize(
    ("layers", "heads", "neurons", "head_dim"), [(3, 4, 24, 4), (12, 12, 3072, 64), (2, 16, 32, 1)]
)
def test_the_mixed_masks_hold_every_size_but_the_dense_ones(layers, heads, neurons, head_dim):
    masks = mixed_masks(layers, heads, neurons, head_dim)
    assert all(mask.heads.shape == (layers, heads) for mask in masks)
    assert all(mask.neurons.shape == (layers, neurons) for mask in masks)
    parts = ("heads", "qk_dims", "value_dims")
    attention = torch.stack(
        [torch.cat([mask.tensors[part].sum(1) for mask in masks]) for part in parts], dim=1
    )
    sizes = measured_head_sizes(head_dim)
    assert set(map(tuple, attention.tolist())) == {
        *((each, head_dim, head_dim) for each in range(heads)),
        *((heads, row, column) for row in sizes for column in sizes),
    } - {(heads, head_dim, head_dim)}
    kept_neurons = torch.cat([mask.neurons.sum(1) for mask in masks])
    assert set(kept_neurons.tolist()) == set(measured_widths(neurons)[:-1])


def test_a_measured_table_is_positive_and_its_dense_tower_takes_what_was_measured(monkeypatch):
    passes = []
    timed = latency_measurement.seconds_of

    def spy(work, device):
        passes.append((macs(work.args[0]).tower, timed(work, device)))
        return passes[-1][1]

    monkeypatch.setattr(latency_measurement, "seconds_of", spy)
    model = tiny_clip()
    table = measure(model, batch_size=2, repetitions=3)
    dense = [seconds for cost, seconds in passes if cost == macs(model).tower]
    assert len(dense) == 4
    assert table.dense == pytest.approx(np.median(dense[1:]) / 2)
    assert 1 < len(table.wholes) <= len(passes) / 4  # fewer where noise makes sums equal
    assert table.wholes[-1] == pytest.approx((table.dense,) * 2)
    assert min(table.outside, *table.heads, *table.neurons) > 0
    assert len(table.heads) == 5
    assert table.widths == tuple(measured_widths(24))
    assert table.head_sizes == (1, 2, 4)
    assert np.array(table.sized).shape == (3, 3)
    assert table.sized[-1][-1] == table.heads[-1]
    assert np.min(table.sized) > 0
    assert table.noise >= 0
    table.check(model.config)


def test_a_table_says_what_it_was_measured_on():
    own = measure(tiny_clip().bfloat16(), batch_size=2, repetitions=1).conditions
    assert (own.device, own.dtype, own.threads) == ("cpu", "bfloat16", torch.get_num_threads())
    assert (own.batch_size, own.repetitions) == (2, 1)
    assert (own.tokens, own.hidden, own.head_dim) == (17, 16, 4)
    assert own.processor


def test_measuring_leaves_the_model_as_it_was():
    model = tiny_clip()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    measure(model, batch_size=1, repetitions=1)
    assert [part.units for part in sublayers(model)] == [4, 24] * 3
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_timed_parts_are_the_whole_tower(monkeypatch):
    """What runs between the marks gives the same embedding as the tower itself."""
    seen = []
    project = latency_measurement.project
    monkeypatch.setattr(
        latency_measurement, "project", lambda model, hidden: seen.append(project(model, hidden))
    )
    model, pixels = prune(tiny_clip(), random_mask(0)), torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        Seconds().add_parts(model, pixels)
        torch.testing.assert_close(seen[0], image_embeddings(model, pixels))


def test_each_sublayers_seconds_go_to_its_own_size():
    model, seconds = tiny_clip(), Seconds()
    heads, neurons = torch.tensor([4, 0, 2]), torch.tensor([24, 24, 7])
    queries, values = torch.tensor([3, 2, 4]), torch.tensor([1, 2, 4])
    mask = Mask(
        torch.arange(4) < heads[:, None],
        torch.arange(24) < neurons[:, None],
        torch.arange(4) < queries[:, None],
        torch.arange(4) < values[:, None],
    )
    with torch.no_grad():
        seconds.add_parts(prune(model, mask), torch.randn(1, 3, 16, 16))
    heads, mlps = (
        {size: len(found) for size, found in laps.items()}
        for laps in (seconds.parts.attention, seconds.parts.mlps)
    )
    assert mlps == {24: 2, 7: 1}
    assert heads == {Attention(4, 3, 1): 1, Attention(0, 4, 4): 1, Attention(2, 4, 4): 1}


def test_every_layer_is_timed_as_if_it_were_the_last_for_the_class_token(monkeypatch):
    """What is timed is what a tower that ends there gives: the same numbers."""
    model, pixels, seen = prune(tiny_clip(), random_mask(3)), torch.randn(2, 3, 16, 16), []
    fed = latency_measurement.class_token_fed
    monkeypatch.setattr(
        latency_measurement,
        "class_token_fed",
        lambda layer, own: seen.append(fed(layer, own)) or seen[-1],
    )
    seconds = Seconds()
    with torch.no_grad():
        seconds.add_class_token(model, pixels)
        entering = Tower.of(model).embed(pixels)
        for layer, found in zip(Tower.of(model).layers, seen, strict=True):
            torch.testing.assert_close(found, layer(entering, None)[:, 0], atol=1e-5, rtol=0)
    parts, own = sublayers(model), seconds.class_token
    assert sum(map(len, own.attention.values())) == sum(map(len, own.mlps.values())) == 3
    assert set(own.mlps) == {part.units for part in parts if part.kind == "neurons"}


def test_seconds_of_the_class_token_alone_are_measured_where_they_are_asked_for():
    model = tiny_clip()
    assert measure(model, batch_size=1, repetitions=1).class_token is None
    own = measure(model, batch_size=1, repetitions=1, class_token=True).class_token
    assert min(*own.heads, *own.neurons, *sum(own.sized, ())) > 0
    assert (len(own.heads), own.widths[-1], own.head_sizes) == (5, 24, (1, 2, 4))


def test_a_table_is_made_of_medians_an_image_scaled_to_the_measured_dense_tower():
    seconds = Seconds()
    seconds.wholes[1, 1], seconds.outside = [66.0, 1.0, 900.0], [6.0]
    seconds.wholes[0, 0] = [6.6, 0.2, 90.0]  # in turn with these, a tenth
    one = Attention(1, 4, 4)
    seconds.parts.attention |= {Attention(0, 4, 4): [2.0], one: [4.0, 99.0, 1.0]}
    seconds.parts.mlps |= {1: [8.0, 8.0], 0: [2.0]}
    table = seconds.table(layers=2, conditions=CONDITIONS)  # of batches of 2 images
    assert table.widths == (0, 1)
    assert table.dense == pytest.approx(33.0)
    scale = 33 / (3 + 2 * (2 + 4))
    assert table.outside == pytest.approx(3 * scale)
    assert table.heads == pytest.approx((1 * scale, 2 * scale))
    assert table.head_sizes == (4,)
    assert table.sized == (table.heads[-1:],)
    assert table.neurons == pytest.approx((1 * scale, 4 * scale))
    assert np.array(table.wholes) == pytest.approx(np.array([[7 * scale, 3.3], [33.0, 33.0]]))


def test_noise_is_the_standard_error_of_a_median_in_shares_of_it():
    rng, seconds = np.random.default_rng(0), Seconds()
    for size in range(50):
        seconds.parts.attention[Attention(size, 4, 4)] = list(rng.normal(5, 0.5, 100))
        seconds.parts.mlps[size] = list(rng.normal(2, 0.2, 100))
    seconds.wholes[49, 49], seconds.outside = [1.0], [1.0]
    medians = np.median(rng.normal(5, 0.5, (1000, 100)), axis=1)
    noise = seconds.table(layers=1, conditions=CONDITIONS).noise
    assert noise == pytest.approx(medians.std() / 5, rel=0.1)


PAGE_FAULTS = """
import resource, sys, torch
from pruning_mechanism.costs.latency_measurement import settle_memory
if sys.argv[1] == "settled":
    settle_memory()
for turn in range(6):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.zeros(4 << 20, dtype=torch.uint8) for _ in range(6)]
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@thorough_only
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that trims its heap")
def test_settled_memory_is_not_handed_back_between_layers():
    faults = {
        state: int(
            subprocess.run(
                [sys.executable, "-c", PAGE_FAULTS, state],
                check=True,
                capture_output=True,
                text=True,
            ).stdout
        )
        for state in ("as found", "settled")
    }
    if not faults["as found"]:
        pytest.skip("this system counts no page faults, or its heap stays as it is anyway")
    assert faults["settled"] < faults["as found"] / 10


@pytest.mark.parametrize("counts", [{"batch_size": 0}, {"repetitions": 0}])
def test_counts_below_one_are_refused(counts):
    with pytest.raises(ValueError, match="at least 1"):
        measure(tiny_clip(), **counts)


def test_a_tower_with_unlike_layers_is_refused():
    model = tiny_clip()
    model.vision_model.encoder.layers[1].mlp.fc2 = torch.nn.Linear(20, 16)
    with pytest.raises(TowerError, match="all alike, found layers of 20, 24 neurons"):
        measure(model)


def test_a_pruned_tower_is_refused():
    with pytest.raises(TowerError):
        measure(prune(tiny_clip(), random_mask(0)))


def test_a_table_of_another_tower_is_refused():
    table = measure(tiny_clip(), batch_size=1, repetitions=1)
    table.check(prune(tiny_clip(), Mask.dense(tiny_clip().config)).config)
    with pytest.raises(TowerError, match="another tower: its neurons: 24, the tower's: 32"):
        table.check(tiny_clip(intermediate_size=32).config)
