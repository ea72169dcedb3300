"""Every link between the pages leads somewhere."""

import pytest

from tests.docs.markdown import ROOT, anchors, links, name, named_files, pages


@pytest.mark.parametrize("page", pages(), ids=name)
def test_links_lead_somewhere(page):
    for target in links(page):
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{name(page)} links to {target}, which is not there"
        if anchor:
            assert anchor in anchors(there), f"{name(page)} links to {target}: no such heading"


def test_headings_have_the_names_that_links_use(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# `a.b` (`--c d,e`)\n\n```sh\n# no heading\n```\n## Which, then?\n")
    assert anchors(page) == {"ab---c-de", "which-then"}


def test_links_are_found_where_they_are(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "[a](b.md) ![c](d.png) [`e` [f]](g.md#h)\n[i](https://j)\n```python\nx[k](l)\n```\n"
    )
    assert links(page) == ["b.md", "d.png", "g.md#h"]


@pytest.mark.parametrize("page", pages(), ids=name)
def test_files_that_a_page_names_are_there(page):
    for path in named_files(page):
        assert (ROOT / path).exists(), f"{name(page)} names {path}, which is not there"
