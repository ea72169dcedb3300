"""Lists on disk as the commands make them and tell of them."""

import json

import pytest

from cascade import Collection
from cascade.collecting.record import Plan
from tests.cascade.photos.conftest import painted
from tests.cascade.test_search_commands import (  # noqa: F401 – fixtures
    first_directory,
    indexed,
    lines_of,
    photos,
    ran,
)

pytest.importorskip("lancedb")


def test_lists_are_made_searched_and_told_of(ran, indexed, photos, tmp_path):  # noqa: F811
    status, out, _ = ran("index", photos, "--into", indexed, "--index", "ivf", "--recall", 1)
    assert status == 0
    assert "making 3 lists of 8 embeddings" in out
    assert "first stage searched: 3 lists on disk" in out
    assert "recall@3 1.0000 on images: " in out
    assert "measured on 8 images when there were 8 photos" in out
    assert "it has no captions: what texts find may be less" in out

    status, out, _ = ran("status", indexed)
    assert "first stage searched: exactly, in memory" in out  # eight photos fit
    status, out, _ = ran("status", indexed, "--index", "ivf")
    assert "first stage searched: 3 lists on disk" in out
    status, out, _ = ran("status", indexed, "--index", "ivf", "--json")
    entry = json.loads(out)
    assert (entry["searched"], entry["inverted"]["lists"]) == ("3 lists on disk", 3)
    assert entry["inverted"]["depths"][0]["recall"] == {"images": 1.0}

    line = ["--like", photos / "2.png", "-k", 3, "--json", "--explain", "--cold"]
    status, listed, said = ran("search", indexed, *line, "--index", "ivf")
    assert status == 0
    assert "first stage searched: 3 lists on disk" in said
    status, exact, said = ran("search", indexed, *line, "--index", "exact")
    assert "first stage searched: exactly, in memory" in said
    assert lines_of(listed) == lines_of(exact)

    painted(photos / "new.png")
    status, out, _ = ran("index", photos, "--into", indexed, "--index", "ivf", "--recall", 1)
    assert "taking 1 embeddings into lists" in out
    assert "when there were 9 photos" in out


def test_a_plan_is_said_not_to_cover_lists(ran, indexed, photos):  # noqa: F811
    with Collection.open(indexed) as collection:
        collection.adopt([3], Plan(3, 0.95, 0.9, 100, "queries", 8, 8))
    status, out, _ = ran("index", photos, "--into", indexed, "--index", "ivf")
    assert status == 0
    assert "the agreement of 0.95 was certified for an exact search" in out
    status, out, _ = ran("status", indexed)
    assert "certified" not in out


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (["--recall", "0"], "--recall"),
        (["--recall", "1.5"], "--recall"),
        (["--index", "hnsw"], "hnsw"),
        (["--index", "exact", "--recall", "0.9"], "--recall has no effect with --index exact"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_read(ran, tmp_path, line, reason):  # noqa: F811
    status, _, said = ran("index", tmp_path, "--into", tmp_path / "none", *line)
    assert status == 2
    assert reason in said
    assert not (tmp_path / "none").exists()
