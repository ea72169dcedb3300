from dataclasses import replace
from pathlib import Path

import pytest
import tyro

from commands.flags import ConfigOption, read_config
from evaluation.cascade import CascadeOptions
from evaluation.experiment.methods import parse_method
from evaluation.masking import MaskingExperimentOptions

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
TABLE_1 = {
    f"{corpus}-{method}"
    for corpus in ("coco", "flickr30k")
    for method in ("fisher", "sensitivity-22", "sensitivity-77", "sensitivity-132")
}
OTHERS = {"masking-demo": MaskingExperimentOptions}
"""Files of other commands than evaluation.cascade."""


def parsed(path: Path) -> ConfigOption:
    options = OTHERS.get(path.stem, CascadeOptions)
    return tyro.cli(options, args=read_config(path, options))


def test_every_experiment_of_table_1_has_a_file():
    assert {path.stem for path in CONFIGS.iterdir()} >= TABLE_1 | {"demo", "flickr8k", *OTHERS}


@pytest.mark.parametrize("path", sorted(CONFIGS.iterdir()), ids=lambda path: path.stem)
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


def test_the_demo_file_is_the_default_experiment():
    default, demo = CascadeOptions(), parsed(CONFIGS / "demo.toml")
    names = ("model", "corpus", "methods", "mac_constraint", "heads", "repair", "m", "f", "samples")
    for name in names:
        assert getattr(demo, name) == getattr(default, name)


def test_the_masking_file_spells_the_defaults_out():
    default, demo = MaskingExperimentOptions(), parsed(CONFIGS / "masking-demo.toml")
    assert replace(demo, output=default.output) == default
    said = read_config(CONFIGS / "masking-demo.toml", MaskingExperimentOptions)
    flags = ("keep", "mask", "align", "corpus", "samples", "m", "f", "seconds", "repetitions")
    assert {f"--{name}" for name in flags} <= set(said)


@pytest.mark.parametrize("path", sorted(CONFIGS.iterdir()), ids=lambda path: path.stem)
def test_a_file_names_the_command_that_takes_it(path):
    command = "masking" if parsed(path).__class__ is MaskingExperimentOptions else "cascade"
    assert f"python -m evaluation.{command} --config configs/{path.name}" in path.read_text()
