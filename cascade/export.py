"""Exporting: what a stage has made of a collection's photos, for other programs.

python -m cascade.export photos.cascade --to parquet --output photos-parquet
python -m cascade.export photos.cascade --to faiss --output photos-faiss
python -m cascade.export photos.cascade --to qdrant --output photos-qdrant
"""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from cascade.terminal.command import run_command
from commands.errors import UsageError
from commands.flags import ConfigOption, Count, Positional, ReadPath, Unread, WrittenPath
from commands.run import main_of

PACKAGES = {"faiss": "faiss", "qdrant": "qdrant_client"}
"""What formats need beside what a collection on disk does."""


@dataclass(frozen=True)
class ExportOptions(ConfigOption):
    """Write what a stage has made of a collection's photos for other programs.

    Example: python -m cascade.export photos.cascade --to parquet --output photos-parquet
    """

    collection: Positional[Annotated[ReadPath, tyro.conf.arg(metavar="COLLECTION")]] = Path(
        "photos.cascade"
    )
    """the collection, as cascade.index made it"""
    to: Literal["parquet", "faiss", "qdrant"] = "parquet"
    """a Parquet file; a faiss index and a Parquet file of its ids; a Qdrant collection"""
    output: WrittenPath | None = None
    """directory to write (default: the collection's name and the format)"""
    url: str | None = None
    """a Qdrant server to write to in place of a directory; QDRANT_API_KEY is its key"""
    name: str = "images"
    """what the Qdrant collection is called"""
    stage: Count = 1
    """whose embeddings, as cascade.status numbers stages; later ones have encoded some photos"""
    overwrite: bool = False
    """replace an earlier export"""

    exclusive: ClassVar = (("output", "url"),)
    unread: ClassVar = (
        Unread(("url", "name"), lambda options: options.to != "qdrant", "--to other than qdrant"),
        Unread(("overwrite",), lambda options: options.url is not None, "--url"),
    )

    def check(self) -> None:
        """Raise `UsageError` if a package is missing."""
        super().check()
        package = PACKAGES.get(self.to)
        if package is not None and find_spec(package) is None:
            raise UsageError(f"--to {self.to} needs {package}: pip install 'clip-cascade[export]'")


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("cascade.export"), ExportOptions, "cascade.export")

import os

from cascade.collecting.snapshot import Snapshot
from cascade.collection import Collection
from cascade.exporting.writing import add_to_qdrant, write_faiss, write_parquet
from commands.inputs import inputs_of
from commands.screen import console, printable
from commands.writing.outputs import check_output, finished_directory


def main(options: ExportOptions) -> None:
    """Read the collection and write it; no checkpoint is loaded."""
    output = options.output or Path(f"{options.collection.stem}-{options.to}")
    if options.url is None:
        check_output(output, options.overwrite, inputs_of(options))
    with Collection.open(options.collection) as collection:
        if options.stage > len(collection.stages):
            raise UsageError(
                f"--stage {options.stage}: {options.collection} has {len(collection.stages)}"
            )
        snapshot = collection.snapshot(options.stage - 1)
    if not len(snapshot):
        raise UsageError(
            f"stage {options.stage} of {options.collection} has encoded no photos: there is "
            "nothing to export"
        )
    if options.url is not None:
        _to_server(snapshot, options.url, options.name)
        place = f"{options.url}, collection {options.name}"
    else:
        with finished_directory(output, options.overwrite, inputs_of(options)) as directory:
            _write(snapshot, options, directory)
        place = str(output)
    share = ""
    if len(snapshot) < snapshot.images:
        share = f" of {snapshot.images:,}: the others have no embedding of stage {options.stage}"
    console().print(f"exported {len(snapshot):,} photos{share}")
    console().print(f"wrote {printable(place)}", soft_wrap=True)


def _write(snapshot: Snapshot, options: ExportOptions, directory: Path) -> None:
    if options.to == "parquet":
        write_parquet(snapshot, directory)
    elif options.to == "faiss":
        write_faiss(snapshot, directory)
    else:
        from qdrant_client import QdrantClient

        client = QdrantClient(path=str(directory))
        try:
            add_to_qdrant(snapshot, client, options.name)
        finally:
            client.close()


def _to_server(snapshot: Snapshot, url: str, name: str) -> None:
    """Add to a Qdrant server.

    Raises:
        UsageError: it can't be reached, or has such a collection.
    """
    from qdrant_client import QdrantClient

    try:
        client = QdrantClient(url=url, api_key=os.environ.get("QDRANT_API_KEY"))
        if client.collection_exists(name):
            raise UsageError(f"{url} has a collection {name} already: choose another --name")
        add_to_qdrant(snapshot, client, name)
        client.close()
    except UsageError:
        raise
    except Exception as error:  # each of its transports has its own
        said = " ".join(str(error).split())
        raise UsageError(f"{url} doesn't take the photos: {said}") from error
