"""What the support matrix says of rules and families is what the commands do.

The rows of CLIP itself, and of pruning rules on the towers of MetaCLIP 2 and SigLIP, are checked by
the tests of `compress`; here the others are, on checkpoints with random weights.
"""

import runpy
import sys
from pathlib import Path

import pytest

from pruning_mechanism import Mask, load, load_processor, prune, save
from tests.conftest import tiny_processor
from tests.docs.markdown import ROOT
from tests.lanes import sweep
from tests.pruning_mechanism.conftest import tiny_model

FAMILIES = {
    "MetaCLIP 2": "metaclip_2",
    "SigLIP": "siglip",
    "AltCLIP": "altclip",
    "Chinese-CLIP": "chinese_clip",
}
FLAGS = {
    "joint": ("--mac-constraint", "0.5", "--tries", "1", "--curve-samples", "8", "--exits", "3"),
    "recover": ("--mac-constraint", "0.5", "--curve-samples", "8"),
    "fisher": ("--mac-constraint", "0.5"),
    "sensitivity": ("--heads", "3"),
    "baseline": ("--importance", "magnitude", "--mac-constraint", "0.5"),
    "flip": ("--mask", "0.5"),
    "merge": ("--r", "2"),
    "rank": ("--keep", "0.7"),
    "resolution": ("--resolution", "8"),
    "patch_size": ("--patch-size", "2"),
    "early_exit": ("--layer", "2"),
    "align": (),
    "heal": ("--steps", "2", "--batch-size", "8", "--held-out", "22"),
    "distill": (
        *("--student", "timm:test_resnet", "--image-size", "32", "--weights", "scratch"),
        *("--steps", "2", "--batch-size", "8", "--held-out", "22", "--views", "2"),
    ),
}

TRAINING = ("heal", "distill")
CHECKED_ELSEWHERE = {
    (family, rule)
    for family in ("MetaCLIP 2", "SigLIP")
    for rule in ("recover", "fisher", "sensitivity", "baseline")
}
"""By tests/compress/test_tower_option.py, on both towers."""


def tables() -> tuple[dict[str, dict[str, str]], ...]:
    """The page's tables of rules and families, vision towers first: {rule: {family: cell}}."""
    lines = (ROOT / "docs" / "support.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    heads = [number for number, row in enumerate(rows) if row[:2] == ["rule", "CLIP"]]
    found = []
    for head in heads:
        body = rows[head + 2 : rows.index([""], head)]
        found.append(
            {row[0].strip("`"): dict(zip(rows[head][1:], row[1:], strict=True)) for row in body}
        )
    return tuple(found)


VISION, TEXT = tables()


def smaller(base: Path) -> Path:
    """A result made from a checkpoint, that lacks every other neuron."""
    made = base.with_name(f"{base.name}-smaller")
    mask = Mask.dense(load(base).config)
    mask.neurons[:, ::2] = False
    save(prune(load(base), mask), made, load_processor(base))
    return made


@pytest.fixture
def run(folder, hundred, tmp_path, monkeypatch, capsys):
    """run(family, rule, *flags) -> exit status; what was wrong is one line."""

    def ran(family: str, rule: str, *flags: str) -> int:
        output, base = tmp_path / rule, tmp_path / family
        if not base.exists():
            tiny_model(family).save_pretrained(base)
            tiny_processor().save_pretrained(base)
        images = hundred if rule in TRAINING else folder
        model = smaller(base) if rule == "heal" else base
        where = ("--model", model, "--corpus", "folder", "--corpus-dir", images)
        arguments = (*where, "--output", output, *FLAGS[rule], *flags)
        if rule in TRAINING:
            arguments = (*arguments, "--target", base, "--state", tmp_path / "state")
        monkeypatch.setattr(sys, "argv", [rule, *map(str, arguments)])
        capsys.readouterr()
        try:
            runpy.run_module(f"compress.{rule}", run_name="__main__")
        except SystemExit as ended:
            assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")
            assert not output.exists()
            return ended.code
        assert (output / "compression.json").is_file()
        return 0

    return ran


CELLS = {
    (family, rule): cells[family]
    for rule, cells in VISION.items()
    for family in FAMILIES
    if (family, rule) not in CHECKED_ELSEWHERE
}


def few() -> list[tuple[str, str]]:
    """What is refused, and each rule on one family, on each family every fourth rule.

    A student learns from the embeddings of any family alike.
    """
    rules = [rule for rule in VISION if rule != "distill"]
    works = {rule: [pair for pair in CELLS if pair[1] == rule] for rule in rules}
    turns = [pairs[number % len(pairs)] for number, pairs in enumerate(works.values())]
    return [pair for pair in CELLS if CELLS[pair] == "–" or pair in turns]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("family", "rule"), sweep(CELLS, few()))
def test_rules_work_on_the_vision_towers_that_the_page_names(family, rule, run):
    assert run(FAMILIES[family], rule) == {"yes": 0, "–": 2}[CELLS[family, rule]]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", ["SigLIP", "AltCLIP", "Chinese-CLIP"])
def test_rules_refuse_the_text_towers_that_the_page_names(family, run):
    for rule, cells in TEXT.items():
        if cells[family] == "–":
            assert run(FAMILIES[family], rule, "--tower", "text") == 2
        else:
            assert family == "SigLIP"


@pytest.mark.filterwarnings("ignore")
def test_tokens_of_texts_are_ranked_where_the_page_says_so(run):
    assert run("metaclip_2", "rank", "--tower", "text") == 0


def test_the_page_has_every_rule_and_family():
    rules = {path.stem for path in (ROOT / "compress").glob("*.py")}
    assert VISION.keys() == FLAGS.keys()
    assert VISION.keys() <= rules
    for table in (VISION, TEXT):
        for cells in table.values():
            assert cells.keys() == {"CLIP", *FAMILIES}
            assert cells["CLIP"] == "yes"
