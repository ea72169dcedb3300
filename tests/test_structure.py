"""The house stands as the design says, and the script that says so sees what is wrong."""

from pathlib import Path

import pytest

from tests.structure import FLOORS, figures, height, main, packages, read_arrows, wrong

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def house(tmp_path):
    """Write files of a house, named by folder__file or folder__PACKAGE; what is wrong with it."""

    def built(**files: str) -> list[str]:
        for name, content in files.items():
            path = tmp_path / (name.replace("__", "/").replace("PACKAGE", "__init__") + ".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return wrong(read_arrows(tmp_path))

    return built


def test_this_house_has_no_circle_and_no_arrow_that_runs_up(capsys):
    status = main(ROOT)
    said = capsys.readouterr().out
    assert status == 0, said
    assert all(f"| {folder} |" in said for folder in FLOORS)


def test_every_package_stands_on_a_floor():
    assert packages(ROOT) == set(FLOORS)


@pytest.mark.parametrize(
    "arrow",
    [
        "from compress import b",
        "from compress.b import x",
        "import compress.b",
        "from . import b",
        "from .b import x",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from compress.b import X",
        "def f():\n    from compress.b import x",
    ],
)
def test_a_circle_is_seen_however_it_is_written(house, arrow):
    assert "circle: compress.a, compress.b" in house(
        compress__a=arrow, compress__b="from compress import a"
    )


def test_a_circle_by_way_of_others_is_one_circle(house):
    found = house(
        compress__a="import compress.b",
        compress__b="import compress.c",
        compress__c="from compress import a",
    )
    assert found[0] == "circle: compress.a, compress.b, compress.c"


@pytest.mark.parametrize(
    ("low", "high", "runs_up"),
    [
        ("commands", "compress", True),
        ("corpora", "pruning_mechanism", True),
        ("cascade", "compress", True),
        ("evaluation", "figures", True),
        ("figures", "evaluation", False),
        ("compress", "commands", False),
    ],
)
def test_an_arrow_goes_to_a_lower_floor_only(house, low, high, runs_up):
    found = house(**{f"{low}__a": f"from {high}.b import x", f"{high}__b": "import torch"})
    assert found == ([f"up: {low}.a imports {high}.b"] if runs_up else [])


def test_rooms_do_not_import_each_other_even_without_a_circle_of_files(house):
    found = house(
        compress__room__a="import compress.other.a",
        compress__other__a="",
        compress__other__b="import compress.room.b",
        compress__room__b="",
    )
    assert found == ["rooms: compress.other, compress.room import each other"]


def test_a_package_that_offers_what_its_rooms_define_is_no_circle_until_they_ask_it(house):
    offers = {"compress__PACKAGE": "from compress.a import x", "compress__a": "x = 1"}
    assert house(**offers) == []
    assert "circle: compress, compress.a" in house(compress__a="from compress import x")


def test_floors_are_the_files_of_the_longest_chain(house, tmp_path):
    house(
        compress__a="from compress import b, c",
        compress__b="from compress import c",
        compress__c="from compress.room import d",
        compress__room__d="import torch",
    )
    arrows = read_arrows(tmp_path)
    assert height(arrows) == 4
    (folder,) = figures(tmp_path, arrows)
    assert (folder.files, folder.top, folder.top_floors, folder.top_arrows) == (4, 3, 3, 3)
