"""Adding images by the API: uploads into a directory of the server, and files that lie there.

A name that a client gives is never a path: what is uploaded is called by its digest. A file on the
server is opened first, and then it is asked where it really lies, so that no link leads out of the
directories that are allowed, whenever it is exchanged.
"""

import io
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cascade.collection import Collection
from cascade.photos.addresses import key_of_file, uri_of_file
from cascade.serving.formats import FORMATS, Looked, TooManyPixelsError, look
from cascade.serving.limits import Limits
from cascade.serving.work import RefusedError
from cascade.stages.images import UnreadableImage, open_image
from cascade.storing.rows import ImageRow
from corpora import CorpusError
from corpora.decoding.files import digest_of, open_regular


class Additions:
    """Adds images to a collection where that is allowed."""

    def __init__(
        self, collection: Collection, limits: Limits, uploads: Path | None, allowed: Sequence[Path]
    ) -> None:
        """Allow what is allowed.

        Args:
            collection: what is added to.
            limits: of what is added.
            uploads: where uploads are kept; None: there may be none.
            allowed: directories from which files of the server may be added.
        """
        self._collection = collection
        self._limits = limits
        self._uploads = uploads
        self._allowed = [os.path.realpath(directory) for directory in allowed]

    @property
    def may_upload(self) -> bool:
        """Whether there may be uploads."""
        return self._uploads is not None

    def upload(self, content: bytes) -> tuple[int, bool]:
        """Keep an image and add it: its number, and whether it is new.

        Raises:
            RefusedError: uploads aren't allowed, or it is no image that is taken.
            CollectionError: nothing can be written.
        """
        if self._uploads is None:
            raise RefusedError(403, "uploads are not allowed: start the server with --allow-upload")
        suffix = self._checked(content)
        digest = digest_of(io.BytesIO(content))
        place = Path(os.path.abspath(self._uploads)) / f"{digest}{suffix}"
        try:
            _keep(content, place)
        except OSError as error:
            raise RefusedError(503, f"the upload can't be kept: {error.strerror}") from error
        return self._add(str(place), content, digest, place.stat())

    def file(self, path: str) -> tuple[int, bool]:
        """Add a file that lies on the server: its number, and whether it is new.

        Raises:
            RefusedError: it isn't in a directory that is allowed, or is no image that is taken.
            CollectionError: nothing can be written.
        """
        if not self._allowed:
            raise RefusedError(
                403, "files of the server can't be added: start it with --allow-paths DIR"
            )
        outside = RefusedError(403, "the path is in no directory that is allowed")
        if not os.path.isabs(path) or "\0" in path:
            raise RefusedError(422, "path must be an absolute path")
        try:
            real = os.path.realpath(path)
        except (OSError, ValueError) as error:
            raise outside from error
        if not any(os.path.commonpath([real, each]) == each for each in self._allowed):
            raise outside
        try:
            with open_regular(real) as file:
                found = os.fstat(file.fileno())
                # while it was opened a folder may have become a link: then it lies elsewhere
                if os.path.realpath(real) != real or not os.path.samestat(found, os.stat(real)):
                    raise outside
                if found.st_size > self._limits.file:
                    raise RefusedError(
                        422, f"the file has more than the {self._limits.file:,} bytes allowed"
                    )
                content = file.read(self._limits.file + 1)
        except (OSError, CorpusError) as error:
            raise RefusedError(422, "there is no file at this path that can be read") from error
        self._checked(content)
        return self._add(real, content, digest_of(io.BytesIO(content)), found)

    def _add(
        self, path: str, content: bytes, digest: str, found: os.stat_result
    ) -> tuple[int, bool]:
        key = key_of_file(path)
        row = ImageRow(key, uri_of_file(path), found.st_size, found.st_mtime_ns, digest)
        added = self._collection.add([(row, {"path": path, "bytes": content})])
        number = self._collection.id_of(key)
        if added.skipped or number is None:
            raise RefusedError(422, "the image can't be encoded")
        return number, bool(added.added or added.replaced)

    def _checked(self, content: bytes) -> str:
        """The ending for an image's file, if it is one and decodes.

        Raises:
            RefusedError: it doesn't, or is too large.
        """
        looked = checked_image(content, self._limits.pixels)
        try:
            open_image(content, at_least=self._limits.thumbnail)
        except UnreadableImage as error:
            raise RefusedError(422, "the image can't be decoded: it is damaged") from error
        return looked.format.suffix


def checked_image(content: bytes, most: int) -> Looked:
    """What an image is that was sent; it isn't decoded for that.

    Raises:
        RefusedError: it is no image that is taken, or has more than `most` pixels.
    """
    try:
        looked = look(content)
    except TooManyPixelsError as error:
        raise RefusedError(
            422, f"the image has more than the {most:,} pixels that are taken"
        ) from error
    if looked is None:
        raise RefusedError(
            422, f"this is no image that can be read; taken are {', '.join(FORMATS)}"
        )
    if looked.pixels > most:
        raise RefusedError(
            422, f"the image has {looked.pixels:,} pixels; at most {most:,} are taken"
        )
    return looked


def _keep(content: bytes, place: Path) -> None:
    """Write a file; it is there as a whole, and on the disk, or not at all."""
    if place.exists():  # by its name it has these bytes
        return
    place.parent.mkdir(mode=0o700, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=place.parent, prefix=".upload-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, place)
    except BaseException:
        os.unlink(name)
        raise
    directory = os.open(place.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
