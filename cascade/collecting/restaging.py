"""Other stages for a collection on disk, in one step: all of it is there, or nothing has changed.

The first stage's embeddings are mapped and written beside the old ones, with what the new last
stage has encoded already; then the record names the new tables, and the old ones are removed.
Whatever cuts that off, the record names tables that are whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError

from cascade.collecting.recalling import recorded
from cascade.collecting.record import Record
from cascade.stages.mapped import Map, MappedStage, load_maps, save_maps
from cascade.stages.stage import Encoder
from cascade.storing.errors import CollectionError
from cascade.storing.store import Ids, Vectors, in_parts

if TYPE_CHECKING:
    from cascade.storing.lance import LanceStore

_MAPS = "maps-*.safetensors"
_ROWS_AT_ONCE = 1 << 18  # each time is a commit


@dataclass(frozen=True)
class Restaging:
    """What a collection is to have from now on.

    Attributes:
        map: from the first stage's embeddings to the space of the new last stage.
        last: the new last stage, whose text tower encodes the queries of both.
        m: candidates that it is handed.
        ids: int64 [s], images that it has encoded.
        vectors: what it made of them, float32 [s, e].
    """

    map: Map
    last: Encoder
    m: Sequence[int]
    ids: Ids
    vectors: Vectors


def restage(
    store: "LanceStore", path: Path, record: Record, first: Encoder, asked: Restaging
) -> Record:
    """Replace the old stages by the new ones.

    Args:
        store: of the collection; it is closed to writing when this returns.
        path: its directory.
        record: what it was made with.
        first: the first stage as it is now.
        asked: what is to be.

    Returns:
        the new record.

    Raises:
        CollectionError: the directory can't be written, or is full: nothing has changed then.
    """
    with store.writing():
        store.sweep()
        made = store.successor(2)
        try:
            new = _write(made, store, path, record, first, asked)
        except BaseException as error:
            store.sweep()
            _sweep_maps(path, record)
            if isinstance(error, OSError | SafetensorError):
                said = " ".join(str(error).split())
                raise CollectionError(f"{path} can't be written: {said}") from error
            raise
        made.sweep()
        _sweep_maps(path, new)
        made.close()
        return new


def _write(
    made: "LanceStore",
    store: "LanceStore",
    path: Path,
    record: Record,
    first: Encoder,
    asked: Restaging,
) -> Record:
    present = store.images(0)
    there = present.ids[~present.skipped]
    ids = np.empty(0, np.int64)
    for old in in_parts(store.first_embeddings().blocks(), _ROWS_AT_ONCE):
        own = np.isin(old.ids, there)
        if own.any():
            mapped = asked.map(torch.from_numpy(np.ascontiguousarray(old.vectors[own])))
            made.promote(0, old.ids[own], mapped.numpy())
            ids = np.concatenate([ids, old.ids[own]])
    known = np.isin(asked.ids, ids)
    if known.any():
        made.promote(1, asked.ids[known], asked.vectors[known])
    maps = _maps(path, record)
    file = f"maps-{made.generation}.safetensors"
    save_maps([*maps, asked.map], path / file)
    last = recorded(asked.last)
    before = record.stages[0]
    mapped_first = replace(
        before,
        name=MappedStage(first, asked.map, asked.last).name,
        text_name=last.text_name,
        texts=last.checkpoint,
        maps=file,
    )
    new = Record([mapped_first, last], asked.m, record.precision, generation=made.generation)
    new.write(path)
    return new


def _maps(path: Path, record: Record) -> list[Map]:
    """What the first stage's embeddings have been mapped by so far."""
    file = record.stages[0].maps
    return [] if file is None else load_maps(path / file)


def _sweep_maps(path: Path, record: Record) -> None:
    """Remove the maps of other generations."""
    for file in path.glob(_MAPS):
        if file.name != record.stages[0].maps:
            file.unlink(missing_ok=True)
