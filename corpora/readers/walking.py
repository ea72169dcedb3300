"""The images that lie in a folder, however deep, and why other things there are passed over.

Thumbnails that network storage, systems and programs leave behind are no photographs; files of a
kind that can't be decoded here, hidden and empty ones are counted, so that nothing is left out
without a word.
"""

import os
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import features

from corpora.decoding.files import kind_of
from corpora.decoding.images import INSTALL_HEIF, HeifImageFile

_ALWAYS = (
    *(".bmp", ".dib", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".apng", ".ppm", ".pgm"),
    *(".tif", ".tiff", ".webp"),
)
_AVIF = (".avif",)
_JPEG_2000 = (".jp2", ".j2k", ".jpc", ".jpf", ".jpx")
_HEIC = (".heic", ".heif", ".hif")
_PILLOW = "this Pillow was built without its decoder"
# Suffixes that are known but can't be read here, with what would help.
UNSUPPORTED = {
    **({} if features.check("avif") else dict.fromkeys(_AVIF, _PILLOW)),
    **({} if features.check("jpg_2000") else dict.fromkeys(_JPEG_2000, _PILLOW)),
    **({} if HeifImageFile else dict.fromkeys(_HEIC, INSTALL_HEIF)),
}
IMAGE_SUFFIXES = frozenset({*_ALWAYS, *_AVIF, *_JPEG_2000, *_HEIC} - set(UNSUPPORTED))

# Folders, in small letters, that hold no photographs of their own.
_THUMBNAILS = {
    "@eadir": "Synology's thumbnails",
    "@__thumb": "QNAP's thumbnails",
    "@recycle": "deleted files",
    "#recycle": "deleted files",
    "$recycle.bin": "deleted files",
    "__macosx": "macOS' companions",
    "lost+found": "remains of a file system check",
}
_PREVIEWS = (".lrdata", ".lrcat-data")  # Lightroom's, folders like all of its catalogues
_SYSTEM_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"})


@dataclass
class Walk:
    """The images found, as paths relative to the folder with /, in order; the others, counted."""

    images: list[str] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)

    def said(self, directory: Path) -> str | None:
        """What was passed over, in a sentence, or None if nothing was."""
        if not self.ignored:
            return None
        kinds = [
            f"{number:,} {_plural(kind, number)}" for kind, number in sorted(self.ignored.items())
        ]
        return f"{directory}: ignored {', '.join(kinds)}"


def walk(directory: Path, apart_from: Collection[str] = ()) -> Walk:
    """Look for images in a folder and those below; names in `apart_from` right in it are skipped.

    Links to folders are followed, after what isn't linked, and no folder is entered twice, so a
    link that leads back ends nothing.
    """
    found = Walk()
    entered: set[tuple[int, int]] = set()
    waiting = [Path()]
    linked: list[Path] = []
    while waiting or linked:
        relative = (waiting or linked).pop(0)
        if not _enter(directory / relative, entered):
            continue
        for entry in _entries(directory / relative, found):
            if entry.name in apart_from and relative == Path():
                continue
            reason = _ignored(entry)
            if reason is not None:
                found.ignored[reason] += 1
            elif entry.is_dir():
                (linked if entry.is_symlink() else waiting).append(relative / entry.name)
            else:
                found.images.append((relative / entry.name).as_posix())
    found.images.sort(key=lambda name: Path(name))
    return found


def storable(name: str) -> bool:
    """Whether a file name can be stored as text: those that aren't UTF-8 can't."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def passed_over(path: str | os.PathLike[str], directory: str | os.PathLike[str]) -> str | None:
    """Why a file in a folder is no photograph of its own, by the folders it lies in, or None."""
    parts = Path(os.path.relpath(path, directory)).parts
    for part in parts[:-1]:
        if reason := _folder(part):
            return reason
    return "hidden file" if parts[-1].startswith(".") else None


def _enter(folder: Path, entered: set[tuple[int, int]]) -> bool:
    """Whether a folder is entered for the first time, by whatever name."""
    try:
        found = os.stat(folder)
    except OSError:
        return False
    identity = (found.st_dev, found.st_ino)
    if found.st_ino and identity in entered:
        return False
    entered.add(identity)
    return True


def _entries(folder: Path, found: Walk) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from sorted(entries, key=lambda entry: entry.name)
    except OSError:
        found.ignored["folder that can't be read"] += 1


def _ignored(entry: os.DirEntry[str]) -> str | None:
    """Why an entry is passed over, or None if it is an image or a folder to look into."""
    name = entry.name.lower()
    suffix = os.path.splitext(name)[1]
    try:
        if not storable(entry.name):
            return "file or folder whose name isn't UTF-8"
        if entry.is_dir():
            return _folder(entry.name)
        if name.startswith("._"):
            return "macOS companion file (._)"
        if name.startswith("."):
            return "hidden file"
        if name in _SYSTEM_FILES:
            return f"{entry.name} file"
        if suffix in UNSUPPORTED:
            return f"{suffix} file ({UNSUPPORTED[suffix]})"
        if suffix not in IMAGE_SUFFIXES:
            return f"{suffix} file" if suffix else "file without a suffix"
        found = entry.stat()
    except OSError:
        return "link that leads nowhere"
    if kind := kind_of(found.st_mode):
        return f"file that is {kind}"
    return None if found.st_size else "empty file"


def _folder(name: str) -> str | None:
    lower = name.lower()
    if lower in _THUMBNAILS:
        return f"folder {name} ({_THUMBNAILS[lower]})"
    if lower.endswith(_PREVIEWS):
        return f"folder {name} (Lightroom's previews)"
    return f"hidden folder {name}" if name.startswith(".") else None


def _plural(kind: str, number: int) -> str:
    if number == 1:
        return kind
    for one, many in (("file", "files"), ("folder", "folders"), ("link", "links")):
        head, word, tail = kind.partition(one)
        if word:
            return f"{head}{many}{tail}"
    return kind
