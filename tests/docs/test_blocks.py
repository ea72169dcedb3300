"""Every Python block of the pages runs, or says in its first line why it does not."""

import ast

import pytest

import compress.rules
from tests.docs.markdown import ROOT, blocks, name, pages

NOT_RUN = "# Not run by the tests: "
README = ROOT / "README.md"
OTHERS = [page for page in pages() if blocks(page, "python") and page != README]


@pytest.mark.parametrize("page", OTHERS, ids=name)
@pytest.mark.filterwarnings("ignore")
def test_the_blocks_of_a_page_run_one_after_another(
    page, workplace, offline, monkeypatch, tmp_path
):
    monkeypatch.chdir(workplace)
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path))
    monkeypatch.setattr("compress.rules.RULES", dict(compress.rules.RULES))  # a page adds a row
    names = {"__name__": "__main__"}
    for block in blocks(page, "python"):
        text = "\n" * (block.line - 1) + block.text  # so that a traceback names the page's line
        tree = ast.parse(text, str(page))
        if block.text.startswith(NOT_RUN):
            tree.body = [
                line for line in tree.body if isinstance(line, ast.Import | ast.ImportFrom)
            ]
            assert tree.body, f"{name(page)}:{block.line} is not run and imports nothing"
        exec(compile(tree, str(page), "exec"), names)


def test_the_first_screen_searches_a_folder(workplace, offline, monkeypatch, capsys):
    monkeypatch.chdir(workplace)
    (block,) = blocks(README, "python")
    names = {}
    exec(block.text, names)
    found = capsys.readouterr().out.splitlines()
    assert len(found) == 10
    assert all(".jpg" in line for line in found)
    assert len(names["search"]) == 18
