"""Exit, merging and sizes under one budget."""

import functools
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress import align, flip, joint
from compress.budgets import token_prices
from compress.budgets.token_prices import MacPrices, SecondPrices
from compress.choices import Thoroughness
from compress.command import run_command
from compress.searching import combinations, latency
from compress.searching.combinations import Candidate, exits_tried, merging_schedules
from compress.searching.exits import linear_loss, read_off
from compress.solving.alignment import pooled_features
from pruning_mechanism import (
    Mask,
    Reduction,
    Shape,
    Tower,
    load,
    macs,
    parameters,
    prune,
    reduce,
    reduced_shape,
)
from pruning_mechanism.costs.latency import Conditions, LatencyTable
from pruning_mechanism.costs.sublayer_seconds import SublayerSeconds
from pruning_mechanism.deployed.seconds import measure
from pruning_mechanism.deployed.tower import Deployed
from pruning_mechanism.encoding import image_embeddings
from tests.compress.same_function import CHANGES
from tests.compress.solving.test_alignment import calibration
from tests.conftest import tiny_clip, tiny_processor
from tests.lanes import examples, sweep

SMALL = ("--samples", "16", "--search-samples", "16", "--score-samples", "8", "--curve-samples")
SMALL += ("8", "--align-features", "4", "--tries", "2")


@pytest.fixture
def command(clip_directory, folder, tmp_path):
    """Runs the command on the tiny checkpoint and gives the directory that it wrote."""

    def run(*flags: str, model=clip_directory):
        given = ["--model", str(model), "--corpus", "folder", "--corpus-dir", str(folder)]
        given += [*SMALL, "--output", str(tmp_path / "out"), *flags]
        run_command(joint.main, joint.JointOptions, "compress.joint", given)
        return tmp_path / "out"

    return run


@pytest.fixture(scope="module")
def seconds(least_directory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_prices, "measure", functools.partial(measure, repetitions=1))
        return SecondPrices.measured(Deployed(load(least_directory)), batch_size=8)


def given_seconds() -> SecondPrices:
    """Seconds of the tower of `least_directory`, which grow with tokens, heads and neurons."""

    def table(tokens: int) -> LatencyTable:
        conditions = Conditions("cpu", "cpu", "float32", 1, 8, tokens, 8, 4, torch.__version__, 1)
        heads, neurons = (tuple(tokens * (0.1 + np.arange(size))) for size in (3, 5))
        return LatencyTable(
            layers=8,
            outside=1.0,
            heads=heads,
            widths=tuple(range(5)),
            neurons=neurons,
            noise=0.0,
            conditions=conditions,
        )

    return SecondPrices(tuple(map(table, (2, 3, 5))), (0.1, 0.2, 0.3))


@pytest.fixture
def within_half(command, least_directory, monkeypatch):
    """Runs the command under a latency constraint of a half, by seconds that are given."""
    monkeypatch.setattr(SecondPrices, "measured", lambda *_: given_seconds())
    monkeypatch.setattr(combinations, "MERGED", {})
    flags = ("--latency-constraint", "0.5", "--exits", "1", "--structures", "heads,neurons")
    return lambda: command(*flags, model=least_directory)


def read(directory, name):
    return json.loads((directory / name).read_text())


EVERYTHING = "heads,neurons,head_dims,sublayers"


@pytest.mark.parametrize("structures", sweep([EVERYTHING, "heads,neurons"], [EVERYTHING]))
def test_one_checkpoint_keeps_the_constraint_and_loses_least_of_what_was_tried(command, structures):
    directory = command("--mac-constraint", "0.3", "--structures", structures)
    model, found = load(directory), read(directory, "compression.json")
    assert found["mac_fraction"] == macs(model).fraction <= 0.3
    assert found["chain"] == ["joint MAC 0.3"]
    assert "exit after layer" in found["notes"][0]
    tried = read(directory, "joint.json")["tried"]
    (chosen,) = [each for each in tried if each["chosen"]]
    assert chosen["lost"] == min(each["lost"] for each in tried)
    promised = [each["promised"] for each in tried]
    assert promised == sorted(promised)
    assert not all(any(each["merged_per_layer"]) for each in tried)  # pruning alone was tried
    kept = Mask.load(directory / "mask.safetensors")
    own = model.config.vision_config
    assert own.num_hidden_layers == chosen["exit"] == len(kept.heads)
    assert own.heads_per_layer == kept.heads.sum(1).tolist() == chosen["kept"]["heads"]


def test_an_exit_can_be_named_and_several_constraints_share_what_was_measured(command, monkeypatch):
    monkeypatch.setattr(combinations, "MERGED", {"constant": (0.25,)})
    directory = command("--mac-constraint", "0.2,0.4", "--exits", "2")
    for label, most in (("mac-0.2", 0.2), ("mac-0.4", 0.4)):
        model = load(directory / label)
        assert model.config.vision_config.num_hidden_layers == 2
        assert macs(model).fraction <= most


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--align", "none"), "has no effect with --align none"),
        (("--exits", "4"), "layers 1 to 3"),
        (("--tries", "0"), "--tries must be at least 1"),
        (("--search-samples", "7"), "--search-samples must be at least 8"),
        (("--mac-constraint", "1.5"), "in (0, 1]"),
        (("--mac-constraint", "0.001", "--structures", "heads,neurons"), "allow more structures"),
    ],
)
def test_what_cannot_be_found_is_refused(command, capsys, tmp_path, flags, said):
    with pytest.raises(SystemExit) as ending:
        command(*flags)
    assert ending.value.code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_so_few_seconds_are_refused(
    command, capsys, tmp_path, least_directory, seconds, monkeypatch
):
    monkeypatch.setattr(SecondPrices, "measured", lambda *_: seconds)
    monkeypatch.setattr(combinations, "MERGED", {})
    with pytest.raises(SystemExit) as ending:
        command("--latency-constraint", "0.0001", "--exits", "1", model=least_directory)
    assert ending.value.code == 2
    assert "no combination" in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


CORRECTED = {
    "enough": ([0.48], [0.5]),
    "too much": ([0.6, 0.48], [0.5, 0.5 * 0.99 * 0.5 / 0.6]),
    "too little": ([0.4, 0.49], [0.5, 0.5 * 0.99 * 0.5 / 0.4]),
    "too much then": ([0.4, 0.51], [0.5, 0.5 * 0.99 * 0.5 / 0.4]),  # what kept it stays
    "all": ([0.2, 0.2], [0.5, 1.0]),  # there is no more to ask for
}


@pytest.mark.parametrize("case", sweep(CORRECTED, ("too much", "too much then")))
def test_a_latency_constraint_is_corrected_by_what_the_finished_tower_took(
    within_half, monkeypatch, case
):
    measured, asked_for = CORRECTED[case]
    shares, asked, under = iter(measured), [], SecondPrices.under
    monkeypatch.setattr(latency, "measured_share", lambda *_: next(shares))

    def spy(prices, constraint):
        asked.append(constraint)
        return under(prices, constraint)

    monkeypatch.setattr(SecondPrices, "under", spy)
    directory = within_half()
    assert asked == pytest.approx(asked_for)
    assert next(shares, None) is None
    note = read(directory, "compression.json")["notes"][1]
    assert any(f"took {each:.3f}" in note for each in measured if each <= 0.5)


def test_a_latency_constraint_that_no_correction_meets_is_refused(within_half, capsys, monkeypatch):
    monkeypatch.setattr(latency, "measured_share", lambda *_: 0.51)
    with pytest.raises(SystemExit):
        within_half()
    assert "still took 0.510 of the dense" in capsys.readouterr().err.splitlines()[-1]


def seconds_in(runtime: str) -> SecondPrices:
    """Seconds of the tower of `least_directory`, where torch alone merges at no price."""
    merging = (0.0, 0.0, 0.0) if runtime == "torch" else (100.0, 200.0, 300.0)
    return replace(given_seconds(), merging=merging)


@pytest.fixture
def in_runtime(command, least_directory, monkeypatch):
    """Runs the command under a latency constraint, in a runtime whose seconds are given."""
    pytest.importorskip("onnxruntime")
    places = []

    def measured(tower, _size, class_token):
        assert not class_token  # read off all tokens
        places.append((tower.runtime, tower.dtype))
        return seconds_in(tower.runtime)

    def share(smaller, full, _size):
        places.extend((each.runtime, each.dtype) for each in (smaller, full))
        return 0.48

    monkeypatch.setattr(SecondPrices, "measured", measured)
    monkeypatch.setattr(latency, "measured_share", share)
    monkeypatch.setattr(combinations, "MERGED", {"constant": (0.75,)})
    flags = ("--latency-constraint", "0.5", "--exits", "4", "--structures", "heads,neurons")

    def run(*place):
        return command(*flags, *place, "--overwrite", model=least_directory), places

    return run


@pytest.mark.parametrize("tokens", ["class", "all"])
def test_what_is_timed_reads_what_the_result_will(command, least_directory, monkeypatch, tokens):
    """The class token alone: then the last layer is priced, and timed, for nothing else."""
    asked, timed = [], []

    def measured(_tower, _size, class_token):
        asked.append(class_token)
        return given_seconds()

    monkeypatch.setattr(SecondPrices, "measured", measured)
    monkeypatch.setattr(
        latency, "measured_share", lambda smaller, *_: timed.append(smaller.model) or 0.48
    )
    monkeypatch.setattr(combinations, "MERGED", {})
    flags = ("--latency-constraint", "0.5", "--exits", "8", "--structures", "heads,neurons")
    result = load(command(*flags, "--align-tokens", tokens, model=least_directory))
    alone = tokens == "class"
    assert asked == [alone]
    assert Tower.of(result).reads_class_token == alone
    (smaller,) = timed
    assert Tower.of(smaller).reads_class_token == alone
    assert macs(smaller) == macs(result)
    assert parameters(smaller) == parameters(result)


def test_where_merging_costs_more_another_tower_is_chosen(in_runtime):
    merged = {}
    for runtime in ("torch", "onnxruntime"):
        directory, places = in_runtime("--runtime", runtime)
        assert set(places) == {(runtime, None)}  # the full tower's seconds too
        places.clear()
        tried = read(directory, "joint.json")["tried"]
        merged[runtime] = [any(each["merged_per_layer"]) for each in tried]
    assert True in merged["torch"]
    assert merged["onnxruntime"] == [False]  # merging alone would take more than there is


def test_what_a_tower_was_made_to_run_in_is_on_record_and_stays_there(
    in_runtime, capsys, tmp_path, folder
):
    directory, _ = in_runtime("--runtime", "onnxruntime", "--dtype", "float32")
    record = read(directory, "compression.json")
    assert (record["runtime"], record["dtype"]) == ("onnxruntime", "float32")
    note = "took 0.480 of the full tower's seconds here in onnxruntime float32, from pixels on"
    assert note in record["notes"]
    said = " ".join(capsys.readouterr().out.split())
    assert "runs it in onnxruntime, float32" in said
    assert "python -m compress.export" in said
    place = tmp_path / "aligned"
    run_command(
        align.main,
        align.AlignCommandOptions,
        "compress.align",
        f"--model {directory} --corpus folder --corpus-dir {folder} --samples 8 --align none "
        f"--reads thumbnail --output {place}".split(),
    )
    after = read(place, "compression.json")
    assert (after["runtime"], after["dtype"]) == ("onnxruntime", "float32")


def test_of_int8_the_command_that_calibrates_it_is_said(in_runtime, capsys, folder):
    pytest.importorskip("nncf")
    directory, places = in_runtime("--runtime", "onnxruntime", "--dtype", "int8")
    assert set(places) == {("onnxruntime", "int8")}
    said = "".join(capsys.readouterr().out.split())
    for part in (str(directory), "--dtype int8 --corpus folder --corpus-dir", str(folder)):
        assert "".join(part.split()) in said


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--latency-constraint", "0.5", "--runtime", "openvino"), "clip-cascade[openvino]"),
        (
            ("--latency-constraint", "0.5", "--runtime", "onnxruntime", "--dtype", "bfloat16"),
            "not in bfloat16, which torch, compile and openvino do",
        ),
        (("--latency-constraint", "0.5", "--dtype", "int8"), "not in int8, which onnxruntime"),
        (("--mac-constraint", "0.5", "--runtime", "compile"), "no latency constraint"),
        (("--mac-constraint", "0.5", "--dtype", "bfloat16"), "no latency constraint"),
    ],
)
def test_a_runtime_that_is_not_to_be_had_is_refused_before_any_work(
    command, capsys, monkeypatch, flags, said
):
    pytest.importorskip("onnxruntime")
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr("compress.rule_command.open_source", None)
    with pytest.raises(SystemExit) as ending:
        command(*flags)
    assert ending.value.code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_a_tower_that_is_smaller_already_is_refused(command, clip_directory, folder, tmp_path):
    place = tmp_path / "flipped"
    run_command(
        flip.main,
        flip.FlipOptions,
        "compress.flip",
        f"--model {clip_directory} --corpus folder --corpus-dir {folder} --samples 8 "
        f"--align none --output {place}".split(),
    )
    with pytest.raises(SystemExit):
        command(model=place)


def test_what_is_read_off_in_one_pass_is_what_each_exit_reads(clip, folder):
    images = calibration(folder)
    with torch.no_grad():
        targets = torch.cat([image_embeddings(clip, each.pixels) for each in images.batches()])
    schedules = merging_schedules(clip.config)[::3]
    assert [any(each) for each in schedules] == [False, True, True]
    found = read_off(clip, [1, 3], schedules, images, targets)
    for each in found:
        for layers in (1, 3):
            own = reduce(clip, Reduction(layers=layers))
            if any(each.schedule):
                own = reduce(own, Reduction(merged_per_layer=each.schedule[:layers]))
            pooled = pooled_features(own, images)
            assert each.losses[layers] == pytest.approx(linear_loss(pooled, targets), rel=1e-4)
            if not any(each.schedule):
                torch.testing.assert_close(each.pooled[layers], pooled)


def test_a_tower_ends_before_layers_that_keep_nothing(clip):
    heads, neurons = torch.ones(3, 4, dtype=torch.bool), torch.ones(3, 24, dtype=torch.bool)
    heads[1:], neurons[2] = False, False
    found = Candidate(3, (2, 1, 1), Mask(heads, neurons), 0.1)
    assert found.says == "exit after layer 2, 3 tokens merged"
    assert found.merged == (2, 1)
    assert found.kept == Mask(heads[:2], neurons[:2])
    nothing = Mask(torch.zeros_like(heads), torch.zeros_like(neurons))
    assert Candidate(3, (0, 0, 0), nothing, 0.1).layers == 1


def test_schedules_start_with_nothing_merged_and_differ(clip):
    schedules = merging_schedules(clip.config)
    assert not any(schedules[0])
    assert len(set(schedules)) == len(schedules) > 4
    assert {len(each) for each in schedules} == {3}


def test_the_whole_tower_is_the_last_exit_tried():
    deep = tiny_clip(num_hidden_layers=12).config
    assert exits_tried(deep, Thoroughness()) == [2, 4, 6, 8, 10, 12]
    assert exits_tried(tiny_clip().config, Thoroughness()) == [1, 2, 3]


WHOLE = functools.cache(tiny_clip)


@settings(max_examples=examples(10, 30))
@given(st.data())
def test_prices_in_macs_add_up_to_what_the_finished_tower_costs(data):
    model = WHOLE()
    counts = st.integers(0, 4), st.integers(0, 24)
    heads, neurons = (data.draw(st.lists(each, min_size=3, max_size=3)) for each in counts)
    merged = tuple(data.draw(st.lists(st.integers(0, 3), min_size=3, max_size=3)))
    mask = Mask(
        torch.arange(4) < torch.tensor(heads)[:, None],
        torch.arange(24) < torch.tensor(neurons)[:, None],
    )
    reduction = Reduction(merged_per_layer=merged)
    prices = MacPrices.under(model.config, 0.5).of_shape(reduced_shape(model.config, reduction))
    total = sum(
        prices.of(kind, np.array([sizes[layer]]), layer=layer)[0]
        for kind, sizes in (("heads", heads), ("neurons", neurons))
        for layer in range(3)
    )
    assert total == macs(reduce(prune(model, mask), reduction)).encoder
    assert prices.budget == pytest.approx(0.5 * macs(model).encoder, abs=1)


def table(tokens: int, factor: float) -> LatencyTable:
    """Seconds that grow with heads and neurons, all times a factor."""
    conditions = Conditions("cpu", "cpu", "float32", 1, 8, tokens, 16, 4, torch.__version__, 1)
    heads, neurons = (tuple(factor * (1 + np.arange(size))) for size in (5, 25))
    return LatencyTable(
        layers=3,
        outside=factor,
        heads=heads,
        widths=tuple(range(25)),
        neurons=neurons,
        noise=0.0,
        conditions=conditions,
    )


def test_seconds_lie_between_those_of_the_nearest_numbers_of_tokens(clip):
    tables = (table(5, 1.0), table(9, 2.0), table(17, 4.0))
    prices = SecondPrices(tables, (0.5, 0.7, 1.1)).under(0.5)
    assert prices.budget == pytest.approx(0.5 * tables[-1].dense)
    shape = reduced_shape(clip.config, Reduction(merged_per_layer=(4, 4, 0)))
    assert [each.attention for each in shape.layer_tokens] == [17, 13, 9]
    of_shape = prices.of_shape(shape)
    units = np.arange(5)
    for layer, factor in ((0, 4.0), (1, 3.0), (2, 2.0)):
        found = of_shape.of("heads", units, layer=layer)
        np.testing.assert_allclose(found, factor * (1 + units))
    np.testing.assert_allclose(of_shape.of("neurons", units, layer=0), 3.0 * (1 + units))
    merging = 1.1 + 0.9  # of 17 tokens, and of 13
    assert of_shape.budget == pytest.approx(prices.budget - tables[-1].outside - merging)


def test_the_last_layer_costs_what_it_takes_for_the_class_token_alone_unless_tokens_merge_there(
    clip,
):
    def own(full: LatencyTable) -> LatencyTable:
        of_class = SublayerSeconds(heads=full.heads, widths=full.widths, neurons=full.neurons)
        return replace(full, class_token=of_class.scaled(0.1))

    tables = tuple(map(own, (table(5, 1.0), table(9, 2.0), table(17, 4.0))))
    prices, units = SecondPrices(tables, (0.5, 0.7, 1.1)).under(0.5), np.arange(5)
    for merged, factors in (((0, 0, 0), (4.0, 4.0, 0.4)), ((4, 4, 1), (4.0, 3.0, 2.0))):
        of_shape = prices.of_shape(
            reduced_shape(clip.config, Reduction(merged_per_layer=merged if any(merged) else None))
        )
        for layer, factor in enumerate(factors):
            found = of_shape.of("heads", units, layer=layer)
            np.testing.assert_allclose(found, factor * (1 + units))


def test_seconds_are_measured_at_several_numbers_of_tokens(seconds, least_directory):
    assert [each.conditions.tokens for each in seconds.tables] == [2, 3, 5]
    assert len(seconds.merging) == 3
    assert min(seconds.merging) >= 0
    config = load(least_directory).config
    assert replace(seconds, budget=1.0).of_shape(Shape.of(config)).budget < 1.0


KEYS = ("scaled_keys", "shifted_keys", "recombined_heads")
"""Changes that merging sees: tokens are matched by the cosine of their keys, as ToMe does."""


@pytest.mark.parametrize("change", sweep(CHANGES, ("scaled_values", *KEYS[:2])))
def test_exits_of_the_same_function_lose_the_same(folder, change):
    prepare = tiny_processor()

    def in_doubles(images, return_tensors):
        return {"pixel_values": prepare(images=images, return_tensors="pt").pixel_values.double()}

    model = tiny_clip().double()
    images = replace(calibration(folder), processor=in_doubles)
    changed = CHANGES[change](model, torch.Generator().manual_seed(0), "vision")
    targets = torch.randn(16, 8, generator=torch.Generator().manual_seed(1))
    schedules = merging_schedules(model.config)[:: 8 if change in KEYS else 3]
    one, other = (
        read_off(each, [1, 2, 3], schedules, images, targets) for each in (model, changed)
    )
    assert len(one) == len(other) > 0
    for before, after in zip(one, other, strict=True):
        assert after.losses == pytest.approx(before.losses, rel=1e-4)


@pytest.mark.parametrize("images", [8, 20, 60])
def test_what_an_exit_loses_is_what_it_loses_on_other_images(images):
    """With 32 features, few images too: what is left of an image that features single out."""
    generator, claimed, true = torch.Generator().manual_seed(0), [], []
    for _ in range(20):
        pooled = torch.randn(images + 1, 32, generator=generator)
        mixed = torch.randn(32, 8, generator=generator)
        targets = pooled @ mixed + 3 + torch.randn(images + 1, 8, generator=generator)
        claimed.append(linear_loss(pooled[:-1], targets[:-1]))
        true.append(linear_loss(pooled, targets))
    assert sum(claimed) == pytest.approx(sum(true), rel=0.15)
