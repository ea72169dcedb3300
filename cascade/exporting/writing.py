"""Writing what a stage has made of a collection's images in the formats of other programs.

Each takes a snapshot, so that what is written is the collection of one moment, in pieces that are
small in memory. Ids are the collection's own numbers of its images.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cascade.collecting.snapshot import Snapshot

PARQUET = "images.parquet"
INDEX = "index.faiss"
_AT_ONCE = 1 << 14
_POINTS_AT_ONCE = 256


def write_parquet(snapshot: Snapshot, directory: Path, embeddings: bool = True) -> None:
    """Write `images.parquet`: id, key, uri, size, modified, metadata, embedding.

    Embeddings are lists of one length of float32, which every reader of Parquet knows.

    Args:
        snapshot: what is written.
        directory: which exists.
        embeddings: whether to write that column.
    """
    fields = [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        *(pa.field(name, pa.int64()) for name in ("size", "modified")),
        pa.field("metadata", pa.string()),
    ]
    if embeddings:
        dimension = snapshot.dimension
        fields.append(pa.field("embedding", pa.list_(pa.float32(), dimension), nullable=False))
    schema = pa.schema(fields)
    with pq.ParquetWriter(directory / PARQUET, schema) as writer:
        for part in snapshot.pieces(_AT_ONCE):
            columns: list[Any] = [part.ids]
            for name in ("key", "uri", "size", "modified", "metadata"):
                columns.append([getattr(row, name) for row in part.rows])
            if embeddings:
                values = part.embeddings.numpy().ravel()
                columns.append(pa.FixedSizeListArray.from_arrays(pa.array(values), dimension))
            writer.write_table(pa.table(columns, schema=schema))


def write_faiss(snapshot: Snapshot, directory: Path) -> None:
    """Write `index.faiss`, inner products with the collection's ids, and what the ids are.

    That is `images.parquet` without embeddings.
    """
    import faiss

    index = faiss.IndexIDMap(faiss.IndexFlatIP(snapshot.dimension))
    for part in snapshot.pieces(_AT_ONCE):
        index.add_with_ids(np.ascontiguousarray(part.embeddings.numpy()), part.ids)
    faiss.write_index(index, str(directory / INDEX))
    write_parquet(snapshot, directory, embeddings=False)


def add_to_qdrant(snapshot: Snapshot, client: Any, name: str) -> None:
    """Make a collection of Qdrant's whose points have the ids, embeddings and rows of images.

    Scores are inner products, as the collection's own. If it fails nothing is left of it.

    Args:
        snapshot: what is added.
        client: a `qdrant_client.QdrantClient`.
        name: of a collection that isn't there.
    """
    from qdrant_client import models

    dimension = snapshot.dimension
    client.create_collection(
        name, vectors_config=models.VectorParams(size=dimension, distance=models.Distance.DOT)
    )
    try:
        for part in snapshot.pieces(_POINTS_AT_ONCE):
            points = models.Batch(
                ids=part.ids.tolist(),
                vectors=part.embeddings.tolist(),
                payloads=[
                    {
                        "key": row.key,
                        "uri": row.uri,
                        "size": row.size,
                        "modified": row.modified,
                        "metadata": _parsed(row.metadata),
                    }
                    for row in part.rows
                ],
            )
            client.upsert(name, points, wait=True)
    except BaseException:
        client.delete_collection(name)
        raise


def _parsed(metadata: str | None) -> Any:
    """What is JSON as what it says, so that Qdrant can filter by it."""
    try:
        return None if metadata is None else json.loads(metadata)
    except ValueError:
        return metadata
