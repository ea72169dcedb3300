"""What other programs read from an export is what the collection itself returns."""

import duckdb
import faiss
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from qdrant_client import QdrantClient

from cascade import ImageRow
from cascade.export import ExportOptions, main
from cascade.exporting.writing import add_to_qdrant
from commands.errors import UsageError
from tests.cascade.known import Known, numbered, on_disk

IMAGES, K = 60, 5
QUERIES = [str(query) for query in range(0, IMAGES, 9)]


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    """One of whose images some are gone, replaced, renamed or skipped, and few promoted."""
    path = tmp_path_factory.mktemp("exported") / "photos.cascade"
    made = on_disk(path, [Known(0, IMAGES), Known(1, IMAGES)], [8])
    made.add(numbered(range(40), metadata='{"album": "first"}'))
    made.add(numbered(range(40, IMAGES - 1)))
    made.remove(["image 3", "image 44"])
    made.add(numbered([5], size=7, modified=9))
    made.update("image 6", ImageRow("renamed ü", "6"))
    made.add(numbered([IMAGES - 1], reason="it is broken"))
    made.search_many(QUERIES[:2], K)
    made.flush()
    with pytest.MonkeyPatch.context() as patch:  # there are no checkpoints, and none is needed
        patch.setattr("cascade.collection.recalled", lambda *_arguments: made.stages)
        yield made
    made.close()


@pytest.fixture(scope="module")
def first(collection):
    """The keys and scores that the first stage alone returns for the queries."""
    snapshot = collection.snapshot()
    queries = collection.encode_texts(QUERIES)[0]
    scores = queries.double() @ snapshot.embeddings.double().T
    best = scores.topk(K)
    return [
        [
            (snapshot.rows[at].key, pytest.approx(score, abs=1e-6))
            for at, score in zip(*row, strict=True)
        ]
        for row in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


@pytest.fixture(scope="module")
def exported(collection, tmp_path_factory):
    """The directory of an export, made once."""
    place = tmp_path_factory.mktemp("exports")

    def of(kind, **options):
        output = place / f"{kind}-{options.get('stage', 1)}"
        if not output.exists():
            main(ExportOptions(collection=collection.path, to=kind, output=output, **options))
        return output

    return of


def test_a_snapshot_holds_what_can_be_found_and_nothing_else(collection):
    snapshot = collection.snapshot()
    assert {row.key for row in snapshot.rows} == {
        row.key for row in collection.rows() if row.reason is None
    }
    assert [collection.id_of(row.key) for row in snapshot.rows] == snapshot.ids.tolist()
    table = collection.stages[0].table.half().float()
    assert torch.equal(snapshot.embeddings, table[[int(row.uri) for row in snapshot.rows]])
    later = collection.snapshot(1)
    assert 0 < len(later) < later.images == len(snapshot) == len(collection)
    table = collection.stages[1].table.half().float()
    assert torch.equal(later.embeddings, table[[int(row.uri) for row in later.rows]])


def test_a_parquet_file_holds_rows_and_embeddings(collection, exported, capsys):
    found = pq.read_table(exported("parquet") / "images.parquet")
    rows = {row.key: row for row in collection.rows() if row.reason is None}
    assert found["key"].to_pylist() == [row.key for row in collection.snapshot().rows]
    for name in ("uri", "size", "modified", "metadata"):
        values = [getattr(rows[key], name) for key in found["key"].to_pylist()]
        assert found[name].to_pylist() == values
    embeddings = np.stack(found["embedding"].to_numpy())
    assert np.array_equal(embeddings, collection.snapshot().embeddings.numpy())


def test_pandas_and_duckdb_read_it(collection, exported, first):
    file = exported("parquet") / "images.parquet"
    assert len(pd.read_parquet(file)) == len(collection)
    query = collection.encode_texts(QUERIES[:1])[0][0].tolist()
    sql = f"""SELECT key, list_inner_product(embedding, ?::FLOAT[]) AS score
        FROM '{file}' ORDER BY score DESC LIMIT {K}"""
    assert duckdb.execute(sql, [query]).fetchall() == first[0]


def test_a_faiss_index_returns_what_the_first_stage_does(collection, exported, first):
    directory = exported("faiss")
    index = faiss.read_index(str(directory / "index.faiss"))
    table = pq.read_table(directory / "images.parquet")
    keys = dict(zip(table["id"].to_pylist(), table["key"].to_pylist(), strict=True))
    scores, ids = index.search(collection.encode_texts(QUERIES)[0].numpy(), K)
    found = [
        [(keys[at], score) for at, score in zip(*row, strict=True)]
        for row in zip(ids.tolist(), scores.tolist(), strict=True)
    ]
    assert found == first
    assert "embedding" not in table.column_names


def test_qdrant_returns_what_the_first_stage_does(collection, exported, first):
    client = QdrantClient(path=str(exported("qdrant")))
    for query, expected in zip(collection.encode_texts(QUERIES)[0], first, strict=True):
        points = client.query_points("images", query.tolist(), limit=K).points
        assert [(point.payload["key"], point.score) for point in points] == expected
    (point,) = client.retrieve("images", [collection.id_of("image 5")])
    assert (point.payload["size"], point.payload["modified"]) == (7, 9)
    (point,) = client.retrieve("images", [collection.id_of("image 10")])
    assert point.payload["metadata"] == {"album": "first"}
    client.close()


def test_of_a_later_stage_those_that_it_has_encoded_are_exported(collection, exported, capsys):
    table = pq.read_table(exported("parquet", stage=2) / "images.parquet")
    assert len(table) == len(collection.snapshot(1))
    said = " ".join(capsys.readouterr().out.split())
    assert f"exported {len(table)} photos of {len(collection)}" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"stage": 3}, "--stage 3: .* has 2"),
        ({"to": "faiss"}, "exists already"),
        ({"to": "qdrant", "url": "http://127.0.0.1:9"}, "doesn't take the photos"),
    ],
    ids=str,
)
def test_what_cannot_be_exported_is_said_in_a_line(
    collection, exported, tmp_path, monkeypatch, options, said
):
    if "stage" not in options and "url" not in options:
        options = {"output": exported("faiss"), **options}
    elif "url" not in options:
        options = {"output": tmp_path / "out", **options}
    with pytest.raises(UsageError, match=said):
        main(ExportOptions(collection=collection.path, **options))
    assert not list(tmp_path.iterdir())


def test_an_export_that_fails_leaves_nothing(collection, tmp_path, monkeypatch):
    def broken(*_arguments, **_named):
        raise RuntimeError("the disk is gone")

    monkeypatch.setattr("cascade.export.write_faiss", broken)
    with pytest.raises(RuntimeError, match="the disk is gone"):
        main(ExportOptions(collection=collection.path, to="faiss", output=tmp_path / "out"))
    assert not list(tmp_path.iterdir())


def test_a_qdrant_collection_that_fails_half_way_is_removed(collection, monkeypatch):
    client = QdrantClient(":memory:")
    monkeypatch.setattr("cascade.exporting.writing._POINTS_AT_ONCE", 20)
    upsert, done = client.upsert, []

    def twice(*arguments, **named):
        if done:
            raise RuntimeError("the server is gone")
        done.append(upsert(*arguments, **named))

    monkeypatch.setattr(client, "upsert", twice)
    with pytest.raises(RuntimeError, match="the server is gone"):
        add_to_qdrant(collection.snapshot(), client, "images")
    assert not client.collection_exists("images")
