from dataclasses import replace
from pathlib import Path

import pytest
import tyro

from commands.config_file import read_config
from commands.flags import ConfigOption
from commands.writing.results import result_directories
from compress import early_exit, flip, joint
from compress.distill import DistillOptions
from compress.early_exit import EarlyExitOptions
from compress.flip import FlipOptions
from compress.joint import JointOptions
from evaluation.cascade import CascadeOptions
from evaluation.experiment.methods import parse_method
from evaluation.latency import LatencyOptions
from evaluation.masking import MaskingExperimentOptions
from evaluation.text_conditioned import TextConditionedOptions
from evaluation.zero_shot import ZeroShotOptions

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
FILES = sorted(CONFIGS.rglob("*.toml"))
PAPER_CORPORA = ("coco", "flickr30k")
TABLE_1 = {
    f"{corpus}-{method}"
    for corpus in PAPER_CORPORA
    for method in ("fisher", "sensitivity-22", "sensitivity-77", "sensitivity-132")
}
STUDENTS = {
    "mobilenetv3-small": "mobilenetv3_small_100",
    "mobilenetv3-large": "mobilenetv3_large_100",
    "resnet34": "resnet34",
    "resnet50": "resnet50",
}
OTHERS = {
    "demo-exit": EarlyExitOptions,
    "demo-joint": JointOptions,
    "latency": LatencyOptions,
    "masking-demo": MaskingExperimentOptions,
    **{f"{corpus}-masking": FlipOptions for corpus in PAPER_CORPORA},
    **{f"{corpus}-distill-{name}": DistillOptions for corpus in PAPER_CORPORA for name in STUDENTS},
    "text-conditioned": TextConditionedOptions,
    "zero-shot": ZeroShotOptions,
}
"""Files of other commands than evaluation.cascade."""


def parsed(path: Path) -> ConfigOption:
    options = OTHERS.get(path.stem, CascadeOptions)
    return tyro.cli(options, args=read_config(path, options))


def command_of(path: Path) -> str:
    """The module of the command that a file is for."""
    return OTHERS.get(path.stem, CascadeOptions).__module__


def test_every_experiment_of_table_1_has_a_file():
    assert {path.stem for path in CONFIGS.rglob("*.toml")} >= TABLE_1 | {
        "demo",
        "flickr8k",
        *OTHERS,
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_parses(path):
    options = parsed(path)
    assert options.output == Path("results") / path.stem


@pytest.mark.parametrize("name", sorted(TABLE_1))
def test_table_1_files_say_what_their_names_say(name):
    corpus, method, *heads = name.split("-")
    options = parsed(CONFIGS / f"{name}.toml")
    assert options.model == "openai/clip-vit-base-patch16"
    assert (options.corpus, options.methods) == (corpus, (method,))
    assert options.repair == {"fisher": "rescale", "sensitivity": "none"}[method]
    if heads:
        assert options.heads == (int(heads[0]),)


@pytest.mark.parametrize("corpus", PAPER_CORPORA)
@pytest.mark.parametrize("name", STUDENTS)
def test_files_of_students_say_what_their_names_say(corpus, name):
    options = parsed(CONFIGS / "distill" / f"{corpus}-distill-{name}.toml")
    options.check()
    assert (options.corpus, options.student) == (corpus, f"timm:{STUDENTS[name]}")
    assert (options.weights, options.reads_captions) == ("pretrained", False)


@pytest.mark.parametrize("corpus", PAPER_CORPORA)
def test_the_cascades_of_table_1_stand_on_what_the_masking_file_makes(corpus):
    masking = parsed(CONFIGS / f"{corpus}-masking.toml")
    assert (masking.mask, masking.align) == ((0.5, 0.74), "none")
    made = result_directories(flip.rule(masking).settings, "flip", masking.output)
    half, harder = made.values()
    cascades = parsed(CONFIGS / f"{corpus}-cascades.toml")
    cascades.check()
    assert (cascades.stage, cascades.middle, cascades.m) == ((harder, half), (half,), (50, 10))
    for options in (masking, cascades):
        assert options.model == "openai/clip-vit-base-patch16"
        assert options.corpus == corpus
    assert cascades.captions == "first"


def test_the_comparison_has_every_baseline_with_and_without_repair():
    options = parsed(CONFIGS / "recover-photos.toml")
    methods = {name: parse_method(name, options).options for name in options.methods}
    assert {
        "recover",
        "recover+head_dims",
        "recover+uniform",
        "fisher+rescale",
    } <= set(methods)
    for name in ("random", "magnitude", "taylor", "sensitivity"):
        assert methods[name].repair == "reconstruct"
        assert methods[f"{name}+none"].repair == "none"


def test_the_demo_measures_what_it_makes_and_else_goes_by_the_defaults():
    default, demo = CascadeOptions(), parsed(CONFIGS / "demo.toml")
    assert replace(demo, stage=(), output=default.output) == default
    made = []
    for name, rule in {"demo-joint": joint.rule, "demo-exit": early_exit.rule}.items():
        options = parsed(CONFIGS / f"{name}.toml")
        made += result_directories(rule(options).settings, name, options.output).values()
    assert list(demo.stage) == made


def test_the_demo_compares_the_joint_rule_by_the_clock():
    options = parsed(CONFIGS / "demo-joint.toml")
    assert options.latency_constraint
    assert not options.mac_constraint


def test_make_demo_runs_the_demos_files():
    recipe = (CONFIGS.parent / "Makefile").read_text().split("\ndemo:")[1].split("\n\n")[0]
    files = [path for path in FILES if path.stem.split("-")[0] == "demo"]
    assert [path.stem for path in files] == ["demo-exit", "demo-joint", "demo"]
    for path in files:
        assert f"-m {command_of(path)} --config configs/{path.name} " in recipe


def test_the_masking_file_spells_the_defaults_out():
    default, demo = MaskingExperimentOptions(), parsed(CONFIGS / "masking-demo.toml")
    assert replace(demo, output=default.output) == default
    said = read_config(CONFIGS / "masking-demo.toml", MaskingExperimentOptions)
    flags = ("keep", "mask", "align", "corpus", "samples", "m", "f", "seconds", "repetitions")
    assert {f"--{name}" for name in flags} <= set(said)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_names_the_command_that_takes_it(path):
    assert (
        f"python -m {command_of(path)} --config {path.relative_to(CONFIGS.parent)}"
        in path.read_text()
    )


def test_the_text_conditioned_file_spells_the_defaults_out():
    default, file = TextConditionedOptions(), parsed(CONFIGS / "text-conditioned.toml")
    assert replace(file, output=default.output) == default


def test_the_zero_shot_file_spells_the_defaults_out():
    default, file = ZeroShotOptions(), parsed(CONFIGS / "zero-shot.toml")
    assert replace(file, stages=default.stages, output=default.output) == default
    assert tuple(str(CONFIGS.parent / stage) for stage in file.stages) == default.stages


def test_the_latency_file_spells_the_defaults_out():
    default, file = LatencyOptions(), parsed(CONFIGS / "latency.toml")
    assert replace(file, models=default.models, output=default.output) == default
    assert tuple(str(CONFIGS.parent / model) for model in file.models) == default.models
