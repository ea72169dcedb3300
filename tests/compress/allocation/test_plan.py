import json
import time
from dataclasses import replace

import pytest

from compress import baseline, fisher, recover
from compress.allocation import plan
from compress.allocation.plan import Plan, Scored, plan_of, starting_curves
from compress.budgets.budgets import MacBudget, SecondBudget
from compress.budgets.prices import Prices
from compress.calibrating.cache import Cache
from compress.calibrating.importance import mask_gradients
from compress.calibrating.objective import Embedding
from compress.calibrating.subject import Subject
from compress.command import run_command
from compress.errors import UserError
from compress.making import timing
from compress.making.make import make
from compress.making.source import Needs, Source, open_source
from compress.options import BudgetOptions
from compress.solving import eliminate
from pruning_mechanism import Mask, Shape, Tower, load, macs, parameters
from pruning_mechanism.costs.latency import LatencyTable
from pruning_mechanism.costs.latency_sizes import measured_widths
from tests.compress.budgets.test_prices import cost
from tests.conftest import tiny_clip
from tests.lanes import sweep
from tests.pruning_mechanism.costs.test_latency import CONDITIONS

HALF = MacBudget(0.5)


@pytest.fixture
def options(clip_directory, folder) -> BudgetOptions:
    return BudgetOptions(
        model=str(clip_directory), corpus="folder", corpus_dir=folder, samples=12, batch_size=4,
        repair_samples=12, curve_samples=8,
    )  # fmt: skip


@pytest.fixture
def source(options) -> Source:
    return open_source(options.checkpoints, options.sampling, Needs())


@pytest.fixture
def subject(source) -> Subject:
    (only,) = source.subjects
    return only


def scored(subject: Subject) -> Scored:
    importance = eliminate.importance_of(subject.tower, subject.moments())
    return Scored(importance, "recover")


def planned(subject: Subject, budget, options: BudgetOptions, of=None) -> Plan:
    return plan_of(subject, of or scored(subject), budget, options.spending, recover.select)


@pytest.mark.parametrize("share", [0.08, 0.5, 1.0])
def test_curves_keep_the_budget(subject, options, share):
    made = planned(subject, MacBudget(share), replace(options, round_to=4))
    prices = Prices.in_macs(subject.model.config, share)
    assert cost(prices, made.mask) <= prices.budget
    assert all(width % 4 == 0 for width in made.mask.neurons.sum(1).tolist())


def test_several_budgets_share_moments_curves_and_order(source, options, monkeypatch):
    calls = []
    counted = plan.measure_curves
    monkeypatch.setattr(plan, "measure_curves", lambda *of: calls.append(1) or counted(*of))
    rule = recover.rule(replace(options, mac_constraint=(0.3, 0.6)))
    made = [make(source, rule, each, options.finish) for each in rule.settings]
    assert len(calls) == 1
    assert made[0].towers[0].plan.mask != made[1].towers[0].plan.mask


def fisher_of(subject: Subject) -> Scored:
    gradients = mask_gradients(subject.tower, subject.calibration.batches(), Embedding())
    return Scored(fisher.fisher_information(gradients), "fisher")


@pytest.mark.parametrize("allocate", ["curves", "scores", "uniform"])
def test_fisher_rearranges_before_it_cuts(source, options, allocate):
    given = fisher.ScoreOptions(**vars(replace(options, allocate=allocate)), objective="embedding")
    rule = fisher.rule(given)
    made = make(source, rule, HALF.setting, given.finish)
    (only,) = made.towers
    mask, config = only.plan.mask, tiny_clip().config
    importance = source.subjects[0].once(("fisher", "embedding", 0), None)
    assert fisher.rearranged(importance, mask) == mask
    kept = Shape.of(made.model.config)
    assert [list(kept.heads), list(kept.neurons)] == [
        mask.heads.sum(1).tolist(),
        mask.neurons.sum(1).tolist(),
    ]
    assert mask.mac_fraction(config) <= 0.5


def test_curves_are_measured_for_the_images_and_scores_that_are_asked_for(subject, options):
    starts = [
        starting_curves(subject, of, replace(options, curve_samples=images).spending).curves
        for of, images in (
            (scored(subject), 4), (scored(subject), 12), (fisher_of(subject), 4),
            (scored(subject), 4),
        )
    ]  # fmt: skip
    losses = [[each.losses for each in curves] for curves in starts]
    assert losses[0] != losses[1]
    assert losses[0] != losses[2]
    assert starts[3] is starts[0]


def run(main, options, model, folder, output, *flags) -> None:
    given = ["--model", model, "--corpus", "folder", "--corpus-dir", folder, "--output", output]
    given += ["--samples", 12, "--batch-size", 4, "--repair-samples", 8]
    run_command(main, options, "compress", [str(each) for each in (*given, *flags)])


RECOVER = (recover.main, recover.RecoverOptions)


def record(directory) -> dict:
    return json.loads((directory / "compression.json").read_text())


WRITTEN = [("0.3,0.5",), ("0.3", "0.5"), ("0.3, 0.5",)]


@pytest.mark.parametrize("flags", sweep(WRITTEN, WRITTEN[:1]))
def test_several_constraints_are_written_side_by_side(clip_directory, folder, tmp_path, flags):
    flags = ("--allocate", "uniform", "--mac-constraint", *flags)
    run(*RECOVER, clip_directory, folder, tmp_path / "out", *flags)
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == ["mac-0.3", "mac-0.5"]
    for share in (0.3, 0.5):
        found = record(tmp_path / "out" / f"mac-{share}")
        assert found["constraint"] == f"MAC {share}"
        assert share - 0.15 < found["mac_fraction"] <= share
        assert load(tmp_path / "out" / f"mac-{share}").config.vision_config.num_hidden_layers == 3


OTHERS = [
    (fisher.main, fisher.FisherOptions, ()),
    (fisher.main, fisher.FisherOptions, ("--objective", "embedding")),
    (baseline.main, baseline.BaselineOptions, ("--importance", "magnitude")),
]


@pytest.mark.parametrize(("main", "kind", "flags"), sweep(OTHERS, OTHERS[1:]))
def test_other_rules_allocate_by_curves_too(clip_directory, folder, tmp_path, main, kind, flags):
    flags = (*flags, "--allocate", "curves", "--mac-constraint", 0.5)
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


def by_table(smaller, dense, _size) -> float:
    """A clock on which towers take what the table says."""
    own, table = smaller.model.config.vision_config, made_table()
    kept = own.heads_per_layer, own.neurons_per_layer
    asked = own.query_key_sizes or [4] * 3, own.value_sizes or [4] * 3
    sizes = [[max(1, size) for size in of] for of in asked]
    return table.tower(*kept, *sizes) / table.dense


@pytest.fixture
def as_predicted(monkeypatch):
    monkeypatch.setattr(plan, "measure", lambda *_, **__: made_table())
    monkeypatch.setattr(timing, "measured_share", by_table)


@pytest.mark.parametrize("allocate", ["curves", "uniform"])
def test_a_latency_constraint_is_kept_by_the_table_which_is_written_and_charged(
    clip_directory, folder, tmp_path, monkeypatch, allocate
):
    measured = []

    def slow_measure(tower, batch_size, class_token):
        assert class_token  # aligned to nothing, it is read off the class token
        measured.append(batch_size)
        time.sleep(0.5)
        return made_table()

    monkeypatch.setattr(plan, "measure", slow_measure)
    monkeypatch.setattr(timing, "measured_share", by_table)
    flags = ("--latency-constraint", "0.4,0.7", "--allocate", allocate)
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
    clip_directory, folder, tmp_path, as_predicted
):
    flags = ("--latency-constraint", 0.4, "--structures", "heads,neurons,head_dims,sublayers")
    run(*RECOVER, clip_directory, folder, tmp_path / "out", *flags)
    mask, table = Mask.load(tmp_path / "out" / "mask.safetensors"), made_table()
    kept = [mask.tensors[each].sum(1).tolist() for each in ("heads", "neurons")]
    sizes = [mask.tensors[each].sum(1).tolist() for each in ("qk_dims", "value_dims")]
    assert min(map(min, sizes)) < 4
    assert 0.25 < table.tower(*kept, *sizes) / table.dense <= 0.4
    assert table.tower(*kept) / table.dense > 0.4  # of the dense sizes it would be too slow


NOTES = {
    "kept": ([0.51], "took 0.510 of the dense tower's seconds here, predicted 0."),
    "again": ([0.6, 0.49], "took 0.490 of the dense tower's seconds here, predicted 0."),
    "missed": ([0.6, 0.55], "latency 0.5 is missed: ask for a little less"),
    "no better": ([0.6, 0.7], "latency 0.5 is missed: ask for a little less"),
    "nothing so small": ([5.0], "latency 0.5 is missed: ask for a little less"),
}


@pytest.mark.parametrize("case", NOTES)
def test_a_tower_that_takes_too_much_is_chosen_again_once(
    clip_directory, folder, tmp_path, as_predicted, monkeypatch, case
):
    shares, says = NOTES[case]
    turns = iter(shares)
    monkeypatch.setattr(timing, "measured_share", lambda *_: next(turns))
    flags = ("--allocate", "uniform", "--latency-constraint", 0.5)
    run(*RECOVER, clip_directory, folder, tmp_path / "out", *flags)
    assert not list(turns)
    mask, table = Mask.load(tmp_path / "out" / "mask.safetensors"), made_table()
    predicted = table.tower(mask.heads.sum(1).tolist(), mask.neurons.sum(1).tolist()) / table.dense
    again = case in ("again", "missed")
    assert predicted <= (0.5 * 0.99 * 0.5 / 0.6 if again else 0.5)
    notes = record(tmp_path / "out")["notes"]
    assert any(note.startswith(says) for note in notes)
    assert any(f"predicted {predicted:.3f}" in note for note in notes)
    assert any("chosen again under 0.41" in note for note in notes) == again


def test_what_is_timed_is_aligned_as_the_result_will_be(
    clip_directory, folder, tmp_path, as_predicted, monkeypatch
):
    """Then patches are read, and the last layer is computed for all tokens."""
    towers, measured = [], []
    monkeypatch.setattr(
        timing, "measured_share", lambda smaller, *_: towers.append(smaller.model) or 0.5
    )

    def measure(*_, class_token):
        measured.append(class_token)
        return made_table()

    monkeypatch.setattr(plan, "measure", measure)
    flags = ("--allocate", "uniform", "--latency-constraint", 0.5, "--align", "ridge")
    run(*RECOVER, clip_directory, folder, tmp_path / "out", *flags)
    (timed,), result = towers, load(tmp_path / "out")
    assert measured == [False]
    assert not Tower.of(result).reads_class_token
    assert parameters(timed) == parameters(result)
    assert macs(timed) == macs(result)


def test_dear_heads_are_what_a_latency_constraint_takes_away(subject, options, monkeypatch):
    kept = {}
    for price in (0.1, 10.0):
        monkeypatch.setattr(plan, "measure", lambda *_, price=price, **__: made_table(price))
        fresh = replace(subject, cache=Cache())
        kept[price] = planned(fresh, SecondBudget(0.5), options).mask
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
        (("--round-to", 0), "--round-to must be at least 1"),
    ],
)
def test_what_cannot_be_planned_is_refused(clip_directory, folder, tmp_path, capsys, flags, reason):
    with pytest.raises(SystemExit) as caught:
        run(*RECOVER, clip_directory, folder, tmp_path / "out", *flags)
    assert caught.value.code == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_seconds_cannot_be_ranked_globally(subject, options, monkeypatch):
    monkeypatch.setattr(plan, "measure", lambda *_, **__: made_table())
    ranked = replace(options, allocate="scores")
    with pytest.raises(UserError, match="by curves or uniform"):
        planned(subject, SecondBudget(0.5), ranked)
