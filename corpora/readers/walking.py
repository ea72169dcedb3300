"""The images that lie in a folder, however deep, and why other things there are passed over.

Thumbnails that network storage, systems and programs leave behind are no photographs; files of a
kind that can't be decoded here, hidden and empty ones are counted, so that nothing is left out
without a word.
"""

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import features

from corpora.decoding.files import kind_of
from corpora.decoding.images import INSTALL_HEIF, HeifImageFile
from corpora.decoding.raw import INSTALL_RAW, RAW_SUFFIXES, raw_is_read

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
    **({} if raw_is_read() else dict.fromkeys(sorted(RAW_SUFFIXES), INSTALL_RAW)),
}
IMAGE_SUFFIXES = frozenset({*_ALWAYS, *_AVIF, *_JPEG_2000, *_HEIC, *RAW_SUFFIXES} - {*UNSUPPORTED})

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
    for entry in look(directory, lambda name: name not in apart_from):
        if entry.ignored is None:
            found.images.append(entry.name)
        else:
            found.ignored[entry.ignored] += 1
    found.images.sort(key=lambda name: Path(name))
    return found


@dataclass(frozen=True, slots=True)
class Entry:
    """An image in a folder, or something that is passed over.

    Attributes:
        name: its path relative to the folder, with /.
        ignored: why it is passed over, as a kind of which several can be counted; None: an image.
        photograph: whether its name is that of a photograph, so that one is lost without it.
        stat: of an image, links followed.
    """

    name: str
    ignored: str | None = None
    photograph: bool = False
    stat: os.stat_result | None = None


def look(
    directory: Path, wanted: Callable[[str], bool] = lambda _: True, any_name: bool = False
) -> Iterator[Entry]:
    """The images in a folder and those below, and what is passed over, while it is looked for.

    The order is the same each time: by name, of a folder first its files, and what is linked last.
    Folders are read one at a time, so what is held is the way down to one of them, not the tree.

    Args:
        directory: the folder.
        wanted: whether to look at a file or folder, by its path relative to the directory.
        any_name: also take names that aren't UTF-8 text.
    """
    entered: set[tuple[int, int]] = set()
    linked = [""]
    while linked:
        waiting = [iter([linked.pop(0)])]
        while waiting:
            folder = next(waiting[-1], None)
            if folder is None:
                waiting.pop()
            elif _enter(directory / folder, entered):
                inside: list[str] = []
                for entry in _entries(directory / folder):
                    if isinstance(entry, Entry):
                        yield entry
                        continue
                    name = f"{folder}/{entry.name}" if folder else entry.name
                    if not wanted(name):
                        continue
                    looked_at = _looked_at(name, entry, any_name)
                    if looked_at is not None:
                        yield looked_at
                    else:
                        (linked if entry.is_symlink() else inside).append(name)
                waiting.append(iter(inside))


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


def _entries(folder: Path) -> Iterator["os.DirEntry[str] | Entry"]:
    """What is in a folder, by name; if it can't be read, that."""
    try:
        with os.scandir(folder) as entries:
            yield from sorted(entries, key=lambda entry: entry.name)
    except OSError:
        yield Entry(folder.name, "folder that can't be read")


def _looked_at(name: str, entry: "os.DirEntry[str]", any_name: bool) -> Entry | None:
    """An image, or something that is passed over; None is a folder to look into."""
    reason = None
    try:
        if not any_name and not storable(entry.name):
            return Entry(name, "file or folder whose name isn't UTF-8")
        if entry.is_dir():
            reason = _folder(entry.name)
            return None if reason is None else Entry(name, reason)
        reason = ignored_name(entry.name)
        if reason is None:
            found = entry.stat()
            return Entry(name, ignored_file(found), photograph=True, stat=found)
    except OSError:
        reason = "link that leads nowhere"
    return Entry(name, reason, photographic(entry.name))


def ignored_name(name: str) -> str | None:
    """Why a file of this name (without folders) is passed over, as a kind; None: it isn't."""
    bare = name.lower()
    suffix = os.path.splitext(bare)[1]
    if bare.startswith("._"):
        return "macOS companion file (._)"
    if bare.startswith("."):
        return "hidden file"
    if bare in _SYSTEM_FILES:
        return f"{name} file"
    if suffix in UNSUPPORTED:
        return f"{suffix} file ({UNSUPPORTED[suffix]})"
    if suffix not in IMAGE_SUFFIXES:
        return f"{suffix} file" if suffix else "file without a suffix"
    return None


def ignored_file(found: os.stat_result) -> str | None:
    """Why a file is passed over by what it is, as a kind; None: it isn't."""
    if kind := kind_of(found.st_mode):
        return f"file that is {kind}"
    return None if found.st_size else "empty file"


def photographic(name: str) -> bool:
    """Whether a file of this name would be a photograph, if it could be read."""
    suffix = os.path.splitext(name)[1].lower()
    return not name.startswith(".") and (suffix in IMAGE_SUFFIXES or suffix in UNSUPPORTED)


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
