"""The photographs that are timed: ordinary files on disk, each of which can be opened."""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image

from cascade.photos.addresses import FileAddress, address_of
from cascade.photos.finding import Photos
from cascade.photos.opening import source_of
from commands.published import published_corpus, published_name
from corpora import CorpusError, load_corpus, open_image
from corpora.column import undecoded
from evaluation.growing.alone import sampled_rows
from evaluation.reports.breakdown.report import Files


@dataclass(frozen=True)
class Wanted:
    """Which photographs.

    Attributes:
        places: directories, files or patterns; if there are none, the corpus is taken.
        corpus: its name.
        corpus_dir: where it lies.
        split: of the corpus.
        images: how many of them, drawn by the seed.
        seed: from 0.
    """

    places: tuple[str, ...]
    corpus: str
    corpus_dir: Path | None
    split: str
    images: int
    seed: int

    @property
    def name(self) -> str:
        """What they are called in a report."""
        if self.places:
            return ", ".join(map(published_name, self.places))
        directory = f" {published_name(self.corpus_dir)}" if self.corpus_dir else ""
        return f"{published_corpus(self.corpus)}{directory} ({self.split})"


@dataclass(frozen=True)
class Chosen:
    """Files that can be opened, what they are, and the names of those that can't be."""

    paths: tuple[Path, ...]
    facts: Files
    skipped: tuple[str, ...]


def chosen(wanted: Wanted, beside: Path) -> Chosen:
    """Choose photographs to time.

    Args:
        wanted: which.
        beside: a directory that is deleted later; what is no file of its own is written there.

    Raises:
        CorpusError: there is none that can be opened.
    """
    named = _at_places(wanted) if wanted.places else _of_corpus(wanted)
    paths, skipped = [], []
    for number, (name, source) in enumerate(named):
        try:
            path = _on_disk(source, beside, number)
            open_image(path, at_least=1)
        except (CorpusError, OSError):
            skipped.append(name)
        else:
            paths.append(path)
    if not paths:
        raise CorpusError(f"{wanted.name}: none of {len(named):,} photographs can be opened")
    return Chosen(tuple(paths), _facts(wanted.name, paths), tuple(skipped))


def _at_places(wanted: Wanted) -> list[tuple[str, Any]]:
    """Names and sources of photographs drawn from all that are found."""
    rows = sampled_rows(Photos.at(wanted.places), wanted.images, wanted.seed)
    found = []
    for row in rows:
        address = address_of(row.uri)
        name = Path(address.path).name if isinstance(address, FileAddress) else row.key
        found.append((name, source_of(row.uri)))
    return found


def _of_corpus(wanted: Wanted) -> list[tuple[str, Any]]:
    corpus = load_corpus(wanted.corpus, wanted.corpus_dir, wanted.split, captions=False)
    corpus = corpus.shuffle(seed=wanted.seed).select(range(min(wanted.images, len(corpus))))
    return list(zip(corpus["key"], undecoded(corpus)["image"], strict=True))


def _on_disk(source: Any, beside: Path, number: int) -> Path:
    """The file of a source; one that is made where it is none of its own."""
    while callable(source):
        source = source()
    if isinstance(source, str):
        return Path(source)
    path = source.get("path")
    if source.get("bytes") is None:
        return Path(path)
    # the suffix stays: some decoders are chosen by it
    made = beside / f"{number:06d}{Path(path).suffix if path else ''}"
    made.write_bytes(source["bytes"])
    return made


def _facts(name: str, paths: Sequence[Path]) -> Files:
    sizes, pixels, thumbnails = [], [], 0
    formats: Counter[str] = Counter()
    for path in paths:
        sizes.append(path.stat().st_size)
        try:
            with Image.open(path) as image:
                pixels.append(image.width * image.height)
                formats[_format(image)] += 1
                thumbnails += bool(image.getexif().get_ifd(ExifTags.IFD.IFD1))
        except Exception:  # Pillow alone doesn't read it, or not its metadata
            picture = open_image(path)
            pixels.append(picture.width * picture.height)
            formats[path.suffix.removeprefix(".").upper() or "other"] += 1
    return Files(
        name=name,
        images=len(paths),
        nbytes=float(statistics.median(sizes)),
        pixels=float(statistics.median(pixels)),
        thumbnails=thumbnails,
        formats=dict(formats.most_common()),
    )


def _format(image: Image.Image) -> str:
    """MPO is what Pillow calls a JPEG with further pictures behind it."""
    return "JPEG" if image.format == "MPO" else image.format or "other"
