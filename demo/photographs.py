"""Photographs as people have them, made of a corpus's pictures: camera files and web-sized ones.

    python -m demo.photographs --corpus folder --corpus-dir PICTURES --output results/camera

What opening a file costs shows only on files of the sizes that people have. They are written as
the corpus `folder`, with the captions of the pictures that they were made of.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from commands.errors import UsageError
from commands.flags import Bounds, ConfigOption, Count, ReadPath, Seed, Unread, WrittenPath
from commands.run import main_of
from compress.command import run_command

Part = Annotated[float, Bounds(0, 1)]
"""In [0, 1]."""


@dataclass(frozen=True)
class PhotographsOptions(ConfigOption):
    """Make camera files with thumbnails, and web-sized ones, of a corpus's pictures.

    Example: python -m demo.photographs --images 200 --web 0.5 --output results/photographs
    """

    corpus: str = "scenes"
    """of the pictures: scenes, coco, flickr30k, flickr8k, folder (with captions or without), or
    hub:OWNER/NAME"""
    corpus_dir: ReadPath | None = None
    """where the corpus lies"""
    split: str = "validation"
    """train, validation or test"""
    images: Count | None = None
    """make the first N (default: all)"""
    web: Part = 0.0
    """share of web-sized files, without metadata; the others are a camera's"""
    web_edge: Annotated[int, Bounds(16)] = 500
    """long edge of web-sized files, pixels"""
    megapixels: Annotated[float, Bounds(0.01, 80)] = 12.0
    """of a camera's picture, millions"""
    aspect: Literal["nearest", "4:3", "3:2"] = "nearest"
    """of a camera's picture; the picture it is made of stands in its middle, its edges mirrored"""
    noise: Annotated[float, Bounds(0, 64)] = 5.0
    """standard deviation at mid grey, of 255 levels; files grow with it"""
    thumbnail: Annotated[int, Bounds(16, 512)] = 160
    """long edge of a camera's thumbnail, pixels"""
    letterbox: bool = True
    """black bars in thumbnails of 3:2 pictures, as cameras have them"""
    without_thumbnail: Part = 0.1
    """share of a camera's files that have none"""
    stale: Part = 0.05
    """share whose thumbnail shows the picture before it was edited: cropped, toned or turned"""
    preview: Part = 0.0
    """share with a larger preview behind the picture (MPF)"""
    seed: Seed = 0
    """seed for all that is drawn"""
    output: WrittenPath = Path("results/photographs")
    """directory to write them into, in a folder of the split's name"""
    overwrite: bool = False
    """replace an earlier result"""

    unread: ClassVar = (
        Unread(
            (
                *("megapixels", "aspect", "thumbnail", "letterbox", "without_thumbnail"),
                *("stale", "preview"),
            ),
            lambda options: options.web == 1,
            "--web 1",
        ),
        Unread(("web_edge",), lambda options: options.web == 0, "--web 0"),
    )

    def check(self) -> None:
        """Raise `UsageError` if there would be more than all thumbnails."""
        super().check()
        if self.without_thumbnail + self.stale > 1:
            raise UsageError(
                f"--without-thumbnail {self.without_thumbnail:g} and --stale {self.stale:g} are "
                "more than all of the files"
            )


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("demo.photographs"), PhotographsOptions, "demo.photographs")

import json
import os
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import PurePosixPath

import PIL.Image
from rich.box import SIMPLE_HEAD
from rich.table import Table
from tqdm import tqdm

from commands.inputs import inputs_of
from commands.screen import console, printable
from commands.writing.outputs import finished_directory
from corpora import drop_unreadable, load_corpus
from corpora.photographs.camera import Camera
from corpora.photographs.making import Photograph, photograph
from corpora.pixels.ahead import ahead
from corpora.readers.folder import METADATA
from corpora.splits import split_name

_UNUSUAL = re.compile(r"[^\w.-]+", re.ASCII)
_LONGEST = 100  # characters of a name, which may get a number besides


def main(options: PhotographsOptions) -> None:
    """Make and write the files, and what is known of each beside its captions."""
    camera = camera_of(options)
    threads = os.cpu_count() or 1
    with finished_directory(options.output, options.overwrite, inputs_of(options)) as directory:
        corpus = load_corpus(options.corpus, options.corpus_dir, options.split, captions=False)
        if options.images is not None:
            corpus = corpus.select(range(min(options.images, len(corpus))))
        corpus, _ = drop_unreadable(corpus)
        place = directory / options.split
        place.mkdir()

        def make(numbered: tuple[int, PIL.Image.Image]) -> Photograph:
            return photograph(numbered[1], camera, numbered[0], options.seed)

        made: list[Photograph] = []
        names = file_names(corpus["key"])
        # few ahead: each is held as a whole while it is made, a hundred million bytes of them
        with (
            closing(ahead(enumerate(corpus["image"]), make, threads, 2 * threads)) as ready,
            (place / METADATA).open("w", encoding="utf-8") as metadata,
        ):
            rows = zip(names, corpus["key"], corpus["captions"], ready, strict=True)
            for name, key, captions, photo in tqdm(rows, "making", len(names), unit="photo"):
                (place / name).write_bytes(photo.content)
                entry = {"file_name": name, "captions": captions, "made_of": key, **known_of(photo)}
                metadata.write(json.dumps(entry, ensure_ascii=False) + "\n")
                made.append(photo)
    console().print(_summed_up(made))
    console().print(f"wrote {printable(options.output)}", soft_wrap=True)


def camera_of(options: PhotographsOptions) -> Camera:
    """How photographs are made."""
    return Camera(
        pixels=round(1e6 * options.megapixels),
        aspect=options.aspect,
        noise=options.noise,
        thumbnail=options.thumbnail,
        letterbox=options.letterbox,
        absent=options.without_thumbnail,
        stale=options.stale,
        preview=options.preview,
        web=options.web,
        web_edge=options.web_edge,
    )


def file_names(keys: Iterable[str]) -> list[str]:
    """A name for the file that is made of each image: its own, and a number where that is taken.

    A corpus's keys may hold folders, and characters that not every system has in names.
    """
    names: list[str] = []
    taken: set[str] = set()
    for key in keys:
        first, *rest = PurePosixPath(key).parts
        inside = "-".join(rest if rest and split_name(first) else (first, *rest))
        stem = _UNUSUAL.sub("_", inside.removesuffix(PurePosixPath(inside).suffix)).lstrip("._")
        stem = stem[:_LONGEST] or "photo"
        name, number = stem, 1
        while name.lower() in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.lower())
        names.append(f"{name}.jpg")
    return names


def known_of(photo: Photograph) -> dict[str, object]:
    """What stands beside the captions: of what sort the file is."""
    return {
        "width": photo.size[0],
        "height": photo.size[1],
        "orientation": photo.orientation,
        "camera": photo.camera,
        "thumbnail": photo.thumbnail,
        "preview": photo.preview,
    }


def _summed_up(made: Sequence[Photograph]) -> Table:
    """What was made, by sort: how many, their pixels and bytes."""
    table = Table("file", "files", "megapixels", "MB (from–to)", box=SIMPLE_HEAD)
    for camera, name in ((True, "of a camera"), (False, "web-sized")):
        if files := [photo for photo in made if photo.camera == camera]:
            pixels = statistics.median(photo.size[0] * photo.size[1] for photo in files) / 1e6
            sizes = sorted(len(photo.content) / 1e6 for photo in files)
            middle = statistics.median(sizes)
            span = f"{middle:.2g} ({sizes[0]:.2g}–{sizes[-1]:.2g})"
            table.add_row(name, f"{len(files):,}", f"{pixels:.3g}", span)
    kinds = Counter(photo.thumbnail for photo in made if photo.camera)
    for kind, number in kinds.most_common():
        table.add_row(f"  thumbnail: {kind}", f"{number:,}", "", "")
    return table
