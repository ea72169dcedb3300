"""The notebook: it runs whole on a fresh machine, and is kept as it ran."""

import re

import matplotlib.pyplot as plt
import nbformat
import pytest
from nbclient import NotebookClient

from commands.parsing import parse
from compress import joint
from compress.joint import JointOptions
from tests.docs.markdown import ROOT, blocks, commands, links
from tests.lanes import thorough_only

NOTEBOOK = ROOT / "examples" / "search.ipynb"
PLACES = re.compile(r"/(?:home|root|tmp|work|usr|opt|var|Users)/|[A-Z]:\\")
"""How a path of one machine begins."""
MEASURED = re.compile(r"[\d.]+ s$", re.MULTILINE)


def kept() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


def outputs(notebook) -> list[list[str]]:
    """What each code cell says, without seconds: printed text, and what kinds of pictures."""
    return [
        [
            MEASURED.sub("… s", output.text) if "text" in output else sorted(output.data)[0]
            for output in cell.outputs
            if output.get("name") != "stderr"  # bars, which a terminal and a browser draw unlike
        ]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def test_the_notebook_is_kept_as_it_ran():
    notebook = kept()
    assert NOTEBOOK.stat().st_size < 500_000
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert all(output.output_type != "error" for cell in cells for output in cell.outputs)
    assert all(output.get("name") != "stderr" for cell in cells for output in cell.outputs)
    assert sum(said == ["image/png"] for said in outputs(notebook)) == 3
    assert all(outputs(notebook))


def test_the_notebook_names_no_place_on_one_machine():
    assert not PLACES.search(NOTEBOOK.read_text())
    assert set(kept().metadata.kernelspec) == {"name", "display_name", "language"}


def test_what_the_notebook_shows_comes_out_of_its_cells(tmp_path, monkeypatch, capsys):
    """All cells one after another, as in a kernel, but in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("matplotlib.pyplot.show", lambda: None)
    names, expected = {"__name__": "__main__"}, outputs(kept())
    for cell in (cell for cell in kept().cells if cell.cell_type == "code"):
        exec(compile(cell.source, str(NOTEBOOK), "exec"), names)
        printed = MEASURED.sub("… s", capsys.readouterr().out)
        pictures = ["image/png"] * len(plt.get_fignums())
        plt.close("all")
        said = expected.pop(0)
        assert printed == "".join(part for part in said if part != "image/png")
        assert pictures == [part for part in said if part == "image/png"]
    assert not expected
    assert list(tmp_path.iterdir()) == []


@thorough_only
def test_the_notebook_says_the_same_when_it_runs_again(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    again = kept()
    for cell in again.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    where = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(again, timeout=600, kernel_name="python3", resources=where).execute()
    assert outputs(again) == outputs(kept())
    assert list(tmp_path.iterdir()) == []


def test_what_the_notebook_shows_of_ones_own_images_is_there(tmp_path):
    page = tmp_path / "page.md"
    text = [cell.source for cell in kept().cells if cell.cell_type == "markdown"]
    page.write_text("\n\n".join(text))
    (shown,) = blocks(page, "sh")
    ((_, _, module, *line),) = commands(shown.text, {})
    assert module == "compress.joint"
    (setting,) = joint.rule(parse(JointOptions, module, line)).settings
    (loading,) = blocks(page, "python")
    assert f'"results/joint-{setting.slug}"' in loading.text
    compile(loading.text, "page", "exec")
    for target in links(page):
        assert (NOTEBOOK.parent / target).exists()


@pytest.mark.parametrize("path", ["/home/a/x", "in /tmp/b", "C:\\c"])
def test_a_place_is_found_where_there_is_one(path):
    assert PLACES.search(path)
