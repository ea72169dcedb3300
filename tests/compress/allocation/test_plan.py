import json
import time
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compress import baseline, fisher, recover
from compress.allocation import plan
from compress.allocation.curves import _window, remeasure_curves
from compress.allocation.plan import embedding_loss, make_plan, starting_curves
from compress.budgets.prices import Constraint, Prices
from compress.calibrating.importance import mask_gradients
from compress.calibrating.objective import Embedding
from compress.command import run_command
from compress.errors import UserError
from compress.making import dense
from compress.making.dense import Base, DenseTower, Ledger, open_base
from compress.making.options import BudgetOptions
from compress.making.rule import cut, make_smaller
from compress.solving.repair import repair_tower
from pruning_mechanism import Mask, Shape, Tower, load, prune
from pruning_mechanism.costs.latency import LatencyTable
from pruning_mechanism.costs.latency_sizes import measured_widths
from tests.compress.budgets.test_prices import cost
from tests.compress.solving.test_repair import Images
from tests.conftest import tiny_clip
from tests.pruning_mechanism.costs.test_latency import CONDITIONS

HALF = Constraint("MAC", 0.5)


@pytest.fixture
def options(clip_directory, folder) -> BudgetOptions:
    return BudgetOptions(
        model=str(clip_directory), corpus="folder", corpus_dir=folder, samples=12, batch_size=4,
        repair_samples=12, curve_samples=8,
    )  # fmt: skip


@pytest.fixture
def base(options) -> Base:
    return open_base(options, captions=False)


@pytest.fixture
def tower(base) -> DenseTower:
    (only,) = base.towers
    return only


def scored(tower: DenseTower):
    return recover.importance_of(tower.tower, tower.moments())


def masks(*kept: int) -> list[Mask]:
    """Masks that keep the first so many neurons of every layer."""
    dense = Mask.dense(tiny_clip().config)
    return [Mask(dense.heads, (torch.arange(24) < each).expand(3, 24)) for each in kept]


@pytest.fixture
def scripted(monkeypatch):
    """Puts masks and losses in the place of what is allocated and measured; counts the curves."""

    def play(script: list[tuple[Mask, float]]) -> list[float]:
        turns, spent, losses = iter(script), [], []

        def allocate(importance, curves, prices, multiple, structures):
            mask, loss = next(turns)
            spent.append(prices.constraint)
            losses.append(loss)
            return mask

        monkeypatch.setattr(plan, "by_curves", allocate)
        monkeypatch.setattr(plan, "measure_curves", lambda *_: ["dense"])
        monkeypatch.setattr(plan, "remeasure_curves", lambda *_: [f"after {len(spent)}"])
        monkeypatch.setattr(plan, "embedding_loss", lambda *_: losses[-1])
        return spent

    return play


def test_of_all_rounds_the_tower_that_loses_least_is_taken_with_its_curves(
    tower, options, scripted
):
    first, second, third = masks(8, 9, 10)
    spent = scripted([(first, 0.3), (second, 0.1), (third, 0.2)])
    made = make_plan(tower, scored(tower), HALF, replace(options, rounds=2), "curves")
    assert spent == [0.5] * 3
    assert (made.mask, made.curves) == (second, ["after 1"])


def test_when_nothing_moves_no_further_round_is_made(tower, options, scripted):
    (mask,) = masks(8)
    spent = scripted([(mask, 0.3), (mask, 0.3)])
    made = make_plan(tower, scored(tower), HALF, replace(options, rounds=9), "curves")
    assert (made.mask, spent) == (mask, [0.5, 0.5])


def test_without_rounds_the_dense_towers_curves_decide(tower, options, scripted):
    (mask,) = masks(8)
    spent = scripted([(mask, 0.3)])
    made = make_plan(tower, scored(tower), HALF, replace(options, rounds=0), "curves")
    assert (made.curves, spent) == (["dense"], [0.5])


def test_steps_reach_the_budget_geometrically_and_only_the_last_counts(tower, options, scripted):
    wide, middle, narrow = masks(20, 12, 6)
    spent = scripted([(wide, 0.01), (middle, 0.02), (narrow, 0.3)])
    short = replace(options, rounds=0, steps=3)
    made = make_plan(tower, scored(tower), Constraint("MAC", 0.125), short, "curves")
    assert made.mask == narrow
    assert spent == pytest.approx([0.5, 0.25, 0.125])


def test_a_step_that_changes_nothing_does_not_end_the_search(tower, options, scripted):
    wide, narrow = masks(20, 6)
    scripted([(wide, 0.01), (wide, 0.01), (narrow, 0.3)])
    short = replace(options, rounds=0, steps=3)
    assert make_plan(tower, scored(tower), HALF, short, "curves").mask == narrow


@pytest.mark.parametrize("share", [0.08, 0.5, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_rounds_and_steps_keep_the_budget(tower, options, share, steps):
    given = replace(options, steps=steps, rounds=1, round_to=4)
    made = make_plan(tower, scored(tower), Constraint("MAC", share), given, "curves")
    prices = Prices.in_macs(tower.model.config, share)
    assert cost(prices, made.mask) <= prices.budget
    assert all(width % 4 == 0 for width in made.mask.neurons.sum(1).tolist())


def test_rounds_lose_no_more_than_the_dense_towers_curves(tower, options):
    importance = scored(tower)

    def loss(rounds: int) -> float:
        given = replace(options, rounds=rounds)
        mask = make_plan(tower, importance, HALF, given, "curves").mask
        smaller = Tower.of(cut(tower, mask, given)[0])
        return embedding_loss(tower.tower, smaller, tower.calibration.first(8))

    assert loss(3) <= loss(0) + 1e-9


def test_a_later_curve_passes_through_the_loss_of_the_tower_itself():
    tower, images = Tower.of(tiny_clip(2)), Images(96, 2, batch_size=32)
    (mask,) = masks(8)
    smaller = Tower.of(prune(tower.model, mask))
    repair_tower(tower, smaller, images)
    importance = recover.importance_of(tower, recover.dense_moments(tower, images.batches()))
    order = torch.arange(24, 0, -1.0).expand(3, 24)  # the neurons that the mask keeps come first
    importance = replace(importance, neurons=order)
    curves = remeasure_curves(tower, smaller, mask, importance, images, 96)
    own = embedding_loss(tower, smaller, images)
    assert own > 0.001
    for curve in curves:
        chosen = int(getattr(mask, curve.kind)[curve.layer].sum())
        assert curve.losses[curve.sizes.index(chosen)] == pytest.approx(own, rel=0.25)


@given(
    units=st.integers(1, 4000),
    multiple=st.sampled_from([1, 3, 8, 64, 512, 5000]),
    place=st.floats(0, 1),
    shrinking=st.booleans(),
)
def test_a_later_curve_has_legal_sizes_around_the_one_chosen(units, multiple, place, shrinking):
    legal = [*range(0, units + 1, multiple), units]
    chosen = legal[round(place * (len(legal) - 1))]
    sizes = _window(chosen, units, multiple, shrinking)
    assert sizes == sorted(set(sizes))
    assert set(sizes) <= set(legal)
    assert chosen in sizes
    assert len(sizes) > 1
    assert sizes[0] < chosen or chosen <= 0.04 * units
    assert sizes[-1] > chosen or chosen == units
    assert sizes[0] == 0 or not shrinking


def test_several_budgets_share_moments_curves_and_order(base, options, monkeypatch):
    calls = {"measure_curves": 0, "remeasure_curves": 0}
    for name in calls:
        counted = getattr(plan, name)

        def count(*arguments, name=name, counted=counted):
            calls[name] += 1
            return counted(*arguments)

        monkeypatch.setattr(plan, name, count)
    made = recover.rule(replace(options, mac_constraint=(0.3, 0.6), rounds=1))
    smaller = [make_smaller(base, made, each, options) for each in made.constraints]
    assert calls["measure_curves"] == 1
    assert calls["remeasure_curves"] >= 2
    assert smaller[0].towers[0].plan.mask != smaller[1].towers[0].plan.mask


def fisher_of(tower: DenseTower):
    return fisher.fisher_information(
        mask_gradients(tower.tower, tower.calibration.batches(), Embedding())
    )


def test_a_rules_own_choice_of_units_is_part_of_what_a_round_measures(tower, options):
    """Of fisher's rounds, too, none makes the tower worse; what is measured is what is kept."""
    importance, losses = fisher_of(tower), []
    few = tower.calibration.first(options.curve_samples)
    for rounds in (0, 2):
        given = replace(options, rounds=rounds, allocate="curves")
        arranged = []

        def arrange(*of, arranged=arranged):
            arranged.append(fisher.rearranged(*of))
            return arranged[-1]

        made = make_plan(tower, importance, HALF, given, "scores", arrange=arrange)
        assert made.mask in arranged
        model, _ = made.made or cut(tower, made.mask, given)
        losses.append(embedding_loss(tower.tower, Tower.of(model), few))
        if rounds:
            assert made.made
            again = Tower.of(cut(tower, made.mask, given)[0])
            own = embedding_loss(tower.tower, again, few)
            assert own == pytest.approx(losses[-1], rel=1e-6)
    assert losses[1] <= losses[0] * (1 + 1e-6)


@pytest.mark.parametrize("allocate", ["curves", "scores", "uniform"])
@pytest.mark.parametrize("rounds", [0, 1])
def test_fisher_rearranges_before_it_cuts(base, options, allocate, rounds):
    given = fisher.ScoreOptions(
        **vars(replace(options, allocate=allocate, rounds=rounds)), objective="embedding"
    )
    made = make_smaller(base, fisher.rule(given), HALF, given)
    (only,) = made.towers
    mask, config = only.plan.mask, tiny_clip().config
    importance = base.ledger.once(("vision", ("fisher", "embedding", 0)), None)
    assert fisher.rearranged(importance, mask) == mask
    kept = Shape.of(made.model.config)
    assert [list(kept.heads), list(kept.neurons)] == [
        mask.heads.sum(1).tolist(),
        mask.neurons.sum(1).tolist(),
    ]
    assert mask.mac_fraction(config) <= 0.5


def test_curves_are_measured_for_the_images_and_scores_that_are_asked_for(tower, options):
    importance = scored(tower)
    starts = [
        starting_curves(tower, scores, replace(options, curve_samples=images)).curves
        for scores, images in (
            (importance, 4), (importance, 12), (fisher_of(tower), 4), (importance, 4),
        )
    ]  # fmt: skip
    losses = [[each.losses for each in curves] for curves in starts]
    assert losses[0] != losses[1]
    assert losses[0] != losses[2]
    assert starts[3] is starts[0]


class Clock:
    """A clock that stands still unless work is done."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def work(self, seconds: float, needs=()):
        def make():
            for each in needs:
                each()
            self.now += seconds
            return seconds

        return make


def test_each_result_is_charged_for_all_that_it_needed_and_for_nothing_twice(monkeypatch):
    ledger, clock = Ledger(), Clock()
    monkeypatch.setattr(dense, "time", clock)

    def weights():
        return ledger.once("weights", clock.work(1))

    def moments():
        return ledger.once("moments", clock.work(10, [weights]))

    def curves():
        return ledger.once("curves", clock.work(100, [moments, weights]))

    ledger.open_bill()
    moments(), curves(), weights(), clock.work(1000)()
    assert ledger.bill() == 1111
    ledger.open_bill()
    curves(), weights(), clock.work(2000)()
    assert ledger.bill() == 2111  # as if it had been made alone
    ledger.open_bill()
    moments(), ledger.once("order", clock.work(10_000, [moments]))
    assert ledger.bill() == 10_011
    ledger.open_bill()
    clock.work(5)()
    assert ledger.bill() == 5


def run(main, options, model, folder, output, *flags) -> None:
    given = ["--model", model, "--corpus", "folder", "--corpus-dir", folder, "--output", output]
    given += ["--samples", 12, "--batch-size", 4, "--repair-samples", 8]
    run_command(main, options, "compress", [str(each) for each in (*given, *flags)])


RECOVER = (recover.main, recover.RecoverOptions)


def record(directory) -> dict:
    return json.loads((directory / "compression.json").read_text())


@pytest.mark.parametrize("flags", [("0.3,0.5",), ("0.3", "0.5"), ("0.3, 0.5",)])
def test_several_constraints_are_written_side_by_side(clip_directory, folder, tmp_path, flags):
    flags = ("--allocate", "uniform", "--mac-constraint", *flags)
    run(*RECOVER, clip_directory, folder, tmp_path / "out", *flags)
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == ["mac-0.3", "mac-0.5"]
    for share in (0.3, 0.5):
        found = record(tmp_path / "out" / f"mac-{share}")
        assert found["constraint"] == f"MAC {share}"
        assert share - 0.15 < found["mac_fraction"] <= share
        assert load(tmp_path / "out" / f"mac-{share}").config.vision_config.num_hidden_layers == 3


@pytest.mark.parametrize(
    ("main", "kind", "flags"),
    [
        (fisher.main, fisher.FisherOptions, ()),
        (fisher.main, fisher.FisherOptions, ("--objective", "embedding")),
        (baseline.main, baseline.BaselineOptions, ("--importance", "magnitude")),
    ],
)
def test_other_rules_allocate_by_curves_too(clip_directory, folder, tmp_path, main, kind, flags):
    flags = (*flags, "--allocate", "curves", "--mac-constraint", 0.5, "--rounds", 1)
    run(main, kind, clip_directory, folder, tmp_path / "out", *flags)
    curves = json.loads((tmp_path / "out" / "curves.json").read_text())["curves"]
    mask = Mask.load(tmp_path / "out" / "mask.safetensors")
    assert len(curves) == 6
    for each in curves:
        assert each["chosen"] == int(getattr(mask, each["kind"])[each["layer"]].sum())
    assert 0.35 < mask.mac_fraction(tiny_clip().config) <= 0.5


def made_table(seconds_of_head: float = 1.0) -> LatencyTable:
    """Attention costs as much more as its heads' sizes, 4 + 4, are more than 0."""
    widths, sizes = tuple(measured_widths(24)), (1, 2, 4)
    return LatencyTable(
        layers=3,
        outside=2.0,
        heads=tuple(0.5 + seconds_of_head * heads for heads in range(5)),
        widths=widths,
        neurons=tuple(0.5 + width / 4 for width in widths),
        noise=0.01,
        conditions=CONDITIONS,
        head_sizes=sizes,
        sized=tuple(
            tuple(0.5 + seconds_of_head * (row + column) / 2 for column in sizes) for row in sizes
        ),
    )


@pytest.mark.parametrize("allocate", ["curves", "uniform"])
def test_a_latency_constraint_is_kept_by_the_table_which_is_written_and_charged(
    clip_directory, folder, tmp_path, monkeypatch, allocate
):
    measured = []

    def slow_measure(model, batch_size):
        measured.append(batch_size)
        time.sleep(0.5)
        return made_table()

    monkeypatch.setattr(plan, "measure", slow_measure)
    flags = ("--latency-constraint", "0.4,0.7", "--allocate", allocate)
    flags += ("--rounds", 1) if allocate == "curves" else ()
    run(*RECOVER, clip_directory, folder, tmp_path / "out", *flags)
    assert measured == [4]
    for share in (0.4, 0.7):
        directory = tmp_path / "out" / f"latency-{share}"
        table = LatencyTable.load(directory / "latency.json")
        mask = Mask.load(directory / "mask.safetensors")
        assert table == made_table()
        predicted = table.tower(mask.heads.sum(1).tolist(), mask.neurons.sum(1).tolist())
        assert share - 0.15 < predicted / table.dense <= share
        assert record(directory)["constraint"] == f"latency {share}"
        assert record(directory)["seconds"] > 0.5


def test_head_sizes_shrink_under_a_latency_constraint_as_far_as_their_seconds_say(
    clip_directory, folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(plan, "measure", lambda *_: made_table())
    flags = ("--latency-constraint", 0.4, "--structures", "heads,neurons,head_dims,sublayers")
    run(*RECOVER, clip_directory, folder, tmp_path / "out", *flags)
    mask, table = Mask.load(tmp_path / "out" / "mask.safetensors"), made_table()
    kept = [mask.tensors[each].sum(1).tolist() for each in ("heads", "neurons")]
    sizes = [mask.tensors[each].sum(1).tolist() for each in ("qk_dims", "value_dims")]
    assert min(map(min, sizes)) < 4
    assert 0.25 < table.tower(*kept, *sizes) / table.dense <= 0.4
    assert table.tower(*kept) / table.dense > 0.4  # of the dense sizes it would be too slow


def test_dear_heads_are_what_a_latency_constraint_takes_away(tower, options, monkeypatch):
    kept = {}
    for price in (0.1, 10.0):
        monkeypatch.setattr(plan, "measure", lambda *_, price=price: made_table(price))
        fresh = replace(tower, ledger=Ledger())
        given = Constraint("latency", 0.5)
        kept[price] = make_plan(fresh, scored(fresh), given, options, "curves").mask
    assert kept[10.0].heads.sum() < kept[0.1].heads.sum()
    assert kept[10.0].neurons.sum() > kept[0.1].neurons.sum()


def test_seconds_are_measured_here_if_asked_for(clip_directory, folder, tmp_path):
    run(*RECOVER, clip_directory, folder, tmp_path / "out", "--latency-constraint", 0.95)
    table = LatencyTable.load(tmp_path / "out" / "latency.json")
    mask = Mask.load(tmp_path / "out" / "mask.safetensors")
    table.check(tiny_clip().config)
    assert table.conditions.batch_size == 4
    predicted = table.tower(mask.heads.sum(1).tolist(), mask.neurons.sum(1).tolist())
    assert predicted <= 0.95 * table.dense


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--latency-constraint", 0), "--latency-constraint must be in (0, 1]"),
        (("--mac-constraint", "0.5,1.5"), "--mac-constraint must be in (0, 1], found 1.5"),
        (("--curve-samples", 0), "--curve-samples must be at least 1"),
        (("--rounds", -1), "--rounds must be at least 0"),
        (("--steps", 0), "--steps must be at least 1"),
        (("--round-to", 0), "--round-to must be at least 1"),
    ],
)
def test_what_cannot_be_planned_is_refused(clip_directory, folder, tmp_path, capsys, flags, reason):
    with pytest.raises(SystemExit) as caught:
        run(*RECOVER, clip_directory, folder, tmp_path / "out", *flags)
    assert caught.value.code == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_seconds_cannot_be_ranked_globally(tower, options, monkeypatch):
    monkeypatch.setattr(plan, "measure", lambda *_: made_table())
    ranked = replace(options, allocate="scores")
    with pytest.raises(UserError, match="takes --allocate curves or uniform"):
        make_plan(tower, scored(tower), Constraint("latency", 0.5), ranked, "curves")
