"""What command lines and files may say, and what they can't: nothing is passed over in silence."""

import dataclasses
import importlib
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar, get_args, get_origin, get_type_hints

import pytest

from cascade.export import ExportOptions
from cascade.index import IndexOptions
from cascade.migrate import MigrateOptions
from cascade.refine import RefineOptions
from cascade.search import SearchOptions
from cascade.serve import ServeOptions
from cascade.status import StatusOptions
from commands.errors import UsageError
from commands.flags import (
    Bounds,
    Checkpoint,
    ConfigOption,
    Count,
    ReadPath,
    Seed,
    Share,
    Unread,
    WrittenPath,
)
from commands.inputs import inputs_of
from commands.parsing import parse, said_of
from commands.published import published, published_command
from commands.writing.results import Closing, Outputs
from compress.align import AlignCommandOptions
from compress.baseline import BaselineOptions
from compress.budgets.budgets import MacBudget
from compress.budgets.settings import Setting
from compress.command import run_command
from compress.distill import DistillOptions
from compress.early_exit import EarlyExitOptions
from compress.errors import UserError
from compress.export import ExportTowerOptions
from compress.fisher import FisherOptions
from compress.flip import FlipOptions, MaskingOptions
from compress.heal import HealOptions
from compress.joint import JointOptions
from compress.merge import MergeOptions
from compress.options import BudgetOptions
from compress.patch_size import PatchCommandOptions
from compress.rank import RankOptions
from compress.recover import RecoverOptions
from compress.resolution import ResolutionCommandOptions
from compress.sensitivity import SensitivityOptions
from demo.closing import ClosingOptions
from demo.first_stage import FirstStageOptions
from demo.photographs import PhotographsOptions
from demo.probe import ProbeOptions
from demo.scenes import ScenesOptions
from demo.train import Recipe
from evaluation.breakdown import BreakdownOptions
from evaluation.cascade import CascadeOptions
from evaluation.equal_time import EqualTimeOptions
from evaluation.experiment.methods import parse_method, unread_settings
from evaluation.indexing import IndexingOptions
from evaluation.latency import LatencyOptions
from evaluation.masking import MaskingExperimentOptions
from evaluation.patches import PatchesOptions
from evaluation.plan import PlanOptions
from evaluation.runtimes import RuntimesOptions
from evaluation.seeds import SeedsOptions
from evaluation.stream import StreamOptions
from evaluation.table import TableOptions
from evaluation.text_conditioned import TextConditionedOptions
from evaluation.thumbnails import ThumbnailsOptions
from figures.breakdown import BreakdownFigureOptions
from figures.indexing import IndexingFigureOptions
from figures.latency import LatencyFigureOptions
from figures.mask import MaskOptions
from figures.masking import MaskingFigureOptions
from figures.pareto import ParetoOptions
from figures.patches import PatchesFigureOptions
from figures.repair import RepairOptions
from figures.stream import StreamFigureOptions

COMMANDS = {
    "cascade.export": ExportOptions,
    "cascade.index": IndexOptions,
    "cascade.migrate": MigrateOptions,
    "cascade.refine": RefineOptions,
    "cascade.search": SearchOptions,
    "cascade.serve": ServeOptions,
    "cascade.status": StatusOptions,
    "compress.align": AlignCommandOptions,
    "compress.baseline": BaselineOptions,
    "compress.distill": DistillOptions,
    "compress.early_exit": EarlyExitOptions,
    "compress.export": ExportTowerOptions,
    "compress.fisher": FisherOptions,
    "compress.flip": FlipOptions,
    "compress.heal": HealOptions,
    "compress.joint": JointOptions,
    "compress.merge": MergeOptions,
    "compress.rank": RankOptions,
    "compress.patch_size": PatchCommandOptions,
    "compress.recover": RecoverOptions,
    "compress.resolution": ResolutionCommandOptions,
    "compress.sensitivity": SensitivityOptions,
    "demo.closing": ClosingOptions,
    "demo.first_stage": FirstStageOptions,
    "demo.photographs": PhotographsOptions,
    "demo.probe": ProbeOptions,
    "demo.scenes": ScenesOptions,
    "demo.train": Recipe,
    "evaluation.breakdown": BreakdownOptions,
    "evaluation.cascade": CascadeOptions,
    "evaluation.equal_time": EqualTimeOptions,
    "evaluation.latency": LatencyOptions,
    "evaluation.masking": MaskingExperimentOptions,
    "evaluation.patches": PatchesOptions,
    "evaluation.indexing": IndexingOptions,
    "evaluation.plan": PlanOptions,
    "evaluation.runtimes": RuntimesOptions,
    "evaluation.seeds": SeedsOptions,
    "evaluation.stream": StreamOptions,
    "evaluation.thumbnails": ThumbnailsOptions,
    "evaluation.table": TableOptions,
    "evaluation.text_conditioned": TextConditionedOptions,
    "figures.breakdown": BreakdownFigureOptions,
    "figures.indexing": IndexingFigureOptions,
    "figures.latency": LatencyFigureOptions,
    "figures.mask": MaskOptions,
    "figures.masking": MaskingFigureOptions,
    "figures.pareto": ParetoOptions,
    "figures.patches": PatchesFigureOptions,
    "figures.repair": RepairOptions,
    "figures.stream": StreamFigureOptions,
}


def of(name: str, line: str):
    """The options that a command line of a command stands for."""
    return parse(COMMANDS[name], name, line.split())


# -- contradictions


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("compress.flip", "--mask 0.3 --mac-constraint 0.5"),
        ("compress.flip", "--mask=0.5 --mac_constraint=0.5"),
        ("compress.merge", "--r 4 --mac-constraint 0.5"),
        ("compress.rank", "--keep 0.5 --mac-constraint 0.5"),
        ("compress.early_exit", "--layer 4 --mac-constraint 0.5"),
        ("compress.resolution", "--resolution 96 --mac-constraint 0.5"),
        ("compress.resolution", "--resolution 96 --choose-from 64,96"),
        ("compress.joint", "--mac-constraint 0.07 --latency-constraint 0.3"),
        *(
            (f"compress.{name}", line)
            for name in ("recover", "fisher", "baseline")
            for line in (
                "--mac-constraint 0.5 --heads 22",
                "--latency-constraint 0.5 --heads 22",
                "--mac-constraint 0.5 --latency-constraint 0.5",
            )
        ),
        ("evaluation.cascade", "--mac-constraint 0.5 --latency-constraint 0.5"),
        ("evaluation.cascade", "--methods fisher --stage results/x"),
    ],
)
def test_flags_that_exclude_each_other_are_refused(name, line):
    with pytest.raises(UsageError, match="exclude each other"):
        of(name, line)


@pytest.mark.parametrize(
    ("name", "line", "flag"),
    [
        *(
            (f"compress.{name}", "--repair none --repair-samples 64", "--repair-samples")
            for name in ("recover", "fisher", "baseline", "sensitivity")
        ),
        *(
            (f"compress.{name}", f"--allocate {allocation} {flag} 1", flag)
            for name in ("recover", "fisher", "baseline")
            for allocation in ("scores", "uniform")
            for flag in ("--curve-samples", "--round-to")
        ),
        ("compress.fisher", "--round-to 2", "--round-to"),
        ("compress.baseline", "--curve-samples 64", "--curve-samples"),
        ("compress.baseline", "--importance taylor --hessian-samples 64", "--hessian-samples"),
        ("compress.rank", "--rank-samples 64", "--rank-samples"),
        *(
            (f"compress.{name}", f"--align none {flag} 4", flag)
            for name in ("flip", "merge", "rank", "resolution", "early_exit")
            for flag in ("--align-features", "--target")
        ),
        ("compress.early_exit", "--align none --align-tokens class", "--align-tokens"),
        ("evaluation.masking", "--align none --align-features 4", "--align-features"),
        ("evaluation.latency", "--datasets cifar10", "--datasets"),
        ("evaluation.latency", "--score zero-shot --corpus coco", "--corpus"),
        ("evaluation.latency", "--score zero-shot --captions first", "--captions"),
        ("evaluation.latency", "--score none --full other", "--full"),
        ("figures.pareto", "--y agreement --k 5", "--k"),
    ],
)
def test_a_flag_that_nothing_reads_is_refused(name, line, flag):
    with pytest.raises(UsageError, match=f"{flag} has no effect with"):
        of(name, line)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("compress.fisher", "--allocate curves --curve-samples 8 --round-to 16"),
        ("compress.fisher", "--structures heads,neurons --curve-samples 8"),
        ("compress.recover", "--repair none --structures heads,neurons,head_dims "
         "--repair-samples 64"),
        ("compress.rank", "--ranker learned --rank-samples 64"),
        ("compress.resolution", "--choose-from 64,96 --mac-constraint 0.6"),
        ("compress.baseline", "--importance hessian --hessian-samples 64"),
        ("evaluation.masking", "--align none --target other"),
        ("evaluation.cascade", "--mac-constraint 0.5 --heads 22"),
        ("evaluation.cascade", "--latency-constraint 0.5 --heads 22"),
        ("evaluation.latency", "--score zero-shot --datasets cifar10 --templates cifar"),
        ("evaluation.latency", "--score none --batch 2,8 --corpus coco"),
        ("figures.pareto", "--k 5"),
    ],
)  # fmt: skip
def test_flags_that_go_together_are_taken(name, line):
    options = of(name, line)
    for words in line.removeprefix("--").split(" --"):
        flag, values = words.split()
        taken = getattr(options, flag.replace("-", "_"))
        several = taken if isinstance(taken, tuple) else (taken,)
        assert list(map(str, several)) == values.split(",")


def test_latency_is_not_allocated_by_scores_and_that_is_known_at_once():
    with pytest.raises(UserError, match="--allocate curves or uniform"):
        of("compress.fisher", "--latency-constraint 0.5").budgets()


def test_a_library_may_not_contradict_itself_either():
    with pytest.raises(UsageError, match="exclude each other"):
        MaskingOptions(mask=(0.3,), mac_constraint=(0.5,))
    with pytest.raises(UsageError, match="--samples must be at least 1"):
        MaskingOptions(samples=0)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("compress.flip", [Setting("mask", 0.5)]),
        ("compress.merge", [Setting("r", 8)]),
        ("compress.rank", [Setting("keep", 0.7)]),
        ("compress.early_exit", [Setting("layer", 4)]),
        ("compress.resolution", [Setting("MAC", 0.5)]),
        ("compress.joint", [Setting("MAC", 0.07)]),
        ("compress.recover", [Setting("MAC", 0.5)]),
    ],
)
def test_where_nothing_is_asked_for_the_usual_is_made_and_help_says_it(name, settings, capsys):
    rule = importlib.import_module(name).rule(of(name, ""))
    assert list(rule.settings) == settings
    with pytest.raises(SystemExit):
        of(name, "--help")
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert f"(default: {settings[0].value:g})" in shown


# -- bounds


def numbers():
    """Every option of every command that is a number, or several."""
    for name, options in COMMANDS.items():
        hints = get_type_hints(options)
        for field in fields(options):
            hint = hints[field.name]
            kinds = set(get_args(hint)) if get_args(hint) else {hint}
            if kinds & {int, float}:
                yield name, field.name, get_origin(hint) is tuple


BEYOND = {"seed": "-1", "f": "-0.1", "mask": "1", "muon_lr": "0", "adam_lr": "0"}
"""A value out of bounds, where 0 or -1 is in them."""


@pytest.mark.parametrize(("name", "option", "several"), list(numbers()))
def test_every_number_has_bounds_that_are_checked_before_the_work(name, option, several):
    flag = f"--{option.replace('_', '-')}"
    handed_on = name.startswith("evaluation") and several
    others = {"hessian_samples": "1"} | ({"m": "9"} if handed_on else {})
    for value in {BEYOND.get(option, others.get(option, "-1")), "-1"}:
        line = f"{flag} 1 {value}" if several and option != "mask" else f"{flag} {value}"
        with pytest.raises(UsageError, match=f"^{flag} must be "):
            of(name, line)
    hint = get_type_hints(COMMANDS[name])[option]
    if float in (hint, *get_args(hint)):
        for value in ("nan", "inf"):
            with pytest.raises(UsageError, match=f"^{flag} must be "):
                of(name, f"{flag} {value}")


@pytest.mark.parametrize("line", ["--seed 9223372036854775808", "--batch-size 0", "--samples 0"])
def test_numbers_that_ended_a_run_after_all_its_work_are_refused(line):
    for name in ("compress.flip", "compress.recover", "evaluation.cascade"):
        with pytest.raises(UsageError, match="must be"):
            of(name, line)


def test_bounds_know_their_ends():
    assert 0 in Bounds(0, 1)
    assert 0 not in Bounds(0, 1, low_open=True)
    assert 1 not in Bounds(0, 1, high_open=True)
    assert float("nan") not in Bounds(0)
    assert float("inf") not in Bounds(0)
    assert str(Bounds(0, 1, low_open=True)) == "in (0, 1]"
    assert str(Bounds(0, 1, high_open=True)) == "in [0, 1)"
    assert str(Bounds(1)) == "at least 1"


# -- files


@dataclass(frozen=True)
class Options(ConfigOption):
    """An example.

    Example: none
    """

    mask: tuple[Share, ...] = ()
    """one of two"""
    mac_constraint: tuple[Share, ...] = ()
    """the other"""
    repair: str = "reconstruct"
    """how"""
    repair_samples: Count = 5
    """read by all but none"""
    seed: Seed = 0
    """a number"""
    model: Checkpoint = "demo"
    """read"""
    stage: tuple[ReadPath, ...] = ()
    """read"""
    output: WrittenPath | None = None
    """written"""

    exclusive: ClassVar = (("mask", "mac_constraint"),)
    unread: ClassVar = (
        Unread(("repair_samples",), lambda options: options.repair == "none", "--repair none"),
    )


@pytest.fixture
def with_file(tmp_path):
    """The options of a command line beside a file of that content."""

    def parsed(content: str, line: str = "") -> Options:
        path = tmp_path / "c.toml"
        path.write_text(content)
        return parse(Options, "example", ["--config", str(path), *line.split()])

    return parsed


def test_a_flag_replaces_the_files_settings_that_exclude_it(with_file):
    found = with_file("mask = [0.3, 0.4]\nseed = 3", "--mac-constraint 0.5")
    assert (found.mask, found.mac_constraint, found.seed) == ((), (0.5,), 3)
    assert said_of(found).given == {"config", "mac_constraint", "seed"}


def test_a_file_may_not_contradict_itself(with_file):
    with pytest.raises(UsageError, match="exclude each other"):
        with_file("mask = 0.3\nmac-constraint = 0.5")
    with pytest.raises(UsageError, match="--repair-samples has no effect with --repair none"):
        with_file('repair = "none"\nrepair-samples = 3')


def test_an_entry_that_a_flag_leaves_nothing_to_read_it_is_overruled(with_file):
    assert with_file("repair-samples = 3", "--repair none").repair == "none"
    assert with_file('repair = "none"\nrepair-samples = 3', "--repair rescale").repair_samples == 3
    with pytest.raises(UsageError, match="--repair-samples has no effect"):
        with_file('repair = "none"', "--repair-samples 3")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('config = "other.toml"', "'config' is not one of"),
        ("seed = -1", "--seed must be"),
        ("mask = []", "--mask needs at least one value"),
        ("repair-samples = 1\nrepair_samples = 2", "appears twice"),
    ],
)
def test_what_a_file_cannot_say(with_file, content, said):
    with pytest.raises(UsageError, match=said):
        with_file(content)


def test_a_flag_without_a_value_is_refused():
    with pytest.raises(UsageError, match="--mask needs at least one value"):
        parse(Options, "example", ["--mask"])


# -- what is read, and what is published


def test_inputs_are_what_is_there(tmp_path):
    (tmp_path / "clip").mkdir()
    options = parse(
        Options, "example", ["--model", str(tmp_path / "clip"), "--stage", str(tmp_path), "absent"]
    )
    found = {(each.flag, each.path, each.checkpoint) for each in inputs_of(options)}
    assert found == {("--model", tmp_path / "clip", True), ("--stage", tmp_path, False)}


def test_no_path_is_published(tmp_path, monkeypatch):
    (tmp_path / "clip").mkdir()
    monkeypatch.chdir(tmp_path / "clip")
    line = ["--model", ".", "--stage", "../a/b", str(tmp_path / "c"), "--output", "results/x"]
    options = parse(Options, "example", [*line, "--mask", "0.3,0.4"])
    settings = published(options)
    assert (settings["model"], settings["stage"]) == ("clip", "b, c")
    assert settings["output"] == "x"
    command = published_command("example", options)
    assert command == ("python -m example --model clip --stage b c --output x --mask 0.3 0.4")
    assert str(tmp_path) not in json.dumps(settings) + command
    hub = parse(Options, "example", ["--model", "openai/clip-vit-base-patch16"])
    assert published(hub)["model"] == "openai/clip-vit-base-patch16"


def test_every_option_that_is_a_path_is_marked_as_read_or_written():
    for name, options in COMMANDS.items():
        made = dataclasses.replace(options(), config=Path("/secret/place/c.toml"))
        assert "/secret" not in json.dumps(published(made)), name
        for option, hint in get_type_hints(options).items():
            if Path in (hint, *get_args(hint)):
                several = get_origin(hint) is tuple
                value = Path("/secret/place")
                made = dataclasses.replace(options(), **{option: (value,) if several else value})
                assert published(made)[option] == "place", (name, option)


# -- experiments share settings among methods


@pytest.mark.parametrize(
    ("methods", "given", "unread"),
    [
        (["fisher"], {"heads": (5,)}, ["heads"]),
        (["fisher", "sensitivity"], {"heads": (5,), "mac_constraint": (0.3,)}, []),
        (["sensitivity"], {"mac_constraint": (0.3,)}, ["mac_constraint"]),
        (["flip"], {"repair": "rescale", "curve_samples": 8}, ["curve_samples", "repair"]),
        (["recover+uniform"], {"curve_samples": 2}, ["curve_samples"]),
        (["recover+uniform", "recover"], {"curve_samples": 2}, []),
        (["recover+none"], {"repair_samples": 9}, ["repair_samples"]),
        ([], {"samples": 9, "mac_constraint": (0.3,)}, ["mac_constraint", "samples"]),
    ],
)
def test_settings_that_no_method_reads_are_known(methods, given, unread):
    options = CascadeOptions(**given)
    made = [parse_method(each, options) for each in methods]
    assert unread_settings(made, options, given) == unread


def test_a_methods_budget_is_of_one_kind():
    options = CascadeOptions(latency_constraint=(0.5,))
    assert parse_method("recover", options).settings == (Setting("latency", 0.5),)
    assert parse_method("joint", options).settings == (Setting("latency", 0.5),)
    heads = parse_method("recover+heads", CascadeOptions(heads=(5,)))
    assert heads.settings == (Setting("heads", 5),)


# -- several results


def write_some(setting: Setting, directory: Path) -> Closing:
    if setting.value == 0.3:
        raise UserError("can't be met [bold]")
    (directory / "report.json").write_text("{}")
    return Closing(["[/] a note"], ["[red]a summary[/blue]"])


def outputs(tmp_path, *values) -> Outputs:
    settings = [Setting("MAC", each) for each in values]
    return Outputs(
        {each: tmp_path / "[x]" / each.slug for each in settings}, False, (), (UserError,)
    )


def test_a_constraint_that_cannot_be_met_costs_none_of_the_others(tmp_path, capsys):
    made = outputs(tmp_path, 0.2, 0.3, 0.5)

    def command(_options) -> None:
        made.write((), write_some)

    with pytest.raises(SystemExit) as ending:
        run_command(command, Options, "example", [])
    assert ending.value.code == 2
    said = capsys.readouterr()
    assert "not made: MAC 0.3: can't be met [bold]" in said.err
    assert said.err.splitlines()[-1].startswith("error: MAC 0.3 could not be made")
    assert sorted(each.name for each in (tmp_path / "[x]").iterdir()) == ["mac-0.2", "mac-0.5"]
    for text in ("[/] a note", "[red]a summary[/blue]", f"wrote {tmp_path}/[x]/mac-0.5"):
        assert text in said.out


def test_settings_that_would_share_a_directory_are_refused(tmp_path):
    with pytest.raises(UsageError, match="both would be written"):
        outputs(tmp_path, 0.3, 0.30000001).check()


def test_budgets_keep_their_usual_constraint():
    assert BudgetOptions().budgets() == (MacBudget(0.5),)
