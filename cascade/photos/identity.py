"""How the bytes of a photo are known again: by a digest of all of them, or of their two ends.

A first stage that reads thumbnails needs the beginning of a camera's file; reading the rest for a
digest would cost what the thumbnail saves. So such a file is known by its length, its first 64 kB
and its last 16 kB. This is done for JPEG files alone: their picture is entropy-coded, so pictures
that differ hardly ever have as many bytes, while TIFF and BMP files of one size all do.

The ends are evidence, no proof: a part in the middle may differ. So two files with equal ends are
only taken for one where they were last changed at the same nanosecond as well, which is what rsync
and git trust too; and a digest of the ends never equals one of the whole.
"""

import hashlib
from typing import BinaryIO

from cascade.storing.rows import ImageRow
from corpora.decoding.files import digest_of

HEAD = 1 << 16
"""Bytes of a file's beginning. The EXIF block, with the thumbnail in it, has at most as many."""
TAIL = 1 << 14
LEAST = 4 * HEAD
"""Bytes of a file below which all of it is read: there is little to save."""
_MARK = "-ends"


def is_of_ends(digest: str | None) -> bool:
    """Whether a digest is of the ends of a file alone."""
    return digest is not None and digest.endswith(_MARK)


def of_ends(head: bytes, tail: bytes, size: int) -> str:
    """The digest of a file's length and its ends, marked as such."""
    digest = hashlib.blake2b(size.to_bytes(8, "little"), digest_size=16)
    digest.update(head)
    digest.update(tail)
    return digest.hexdigest() + _MARK


def digest_like(known: str | None, file: BinaryIO) -> str:
    """The digest of an open file, of the same kind as one that is known; whole if there is none."""
    if not is_of_ends(known):
        file.seek(0)
        return digest_of(file)
    size = file.seek(0, 2)
    file.seek(0)
    head = file.read(HEAD)
    file.seek(max(0, size - TAIL))
    return of_ends(head, file.read(TAIL), size)


def says_same(row: ImageRow, known: ImageRow) -> bool | None:
    """Whether two rows are of the same bytes by their digests; None: these can't be compared.

    Digests of ends say so only together with the time of change.
    """
    if row.digest is None or known.digest is None:
        return None
    if is_of_ends(row.digest) != is_of_ends(known.digest):
        return None
    if row.digest != known.digest:
        return False
    if not is_of_ends(row.digest):
        return True
    return row.modified is not None and row.modified == known.modified


def better(digest: str | None, known: str | None) -> str | None:
    """Of two digests of the same bytes the one that says more: of the whole, of the ends, none."""
    return known if digest is None or (is_of_ends(digest) and known is not None) else digest


def version_of(row: ImageRow) -> str | None:
    """A name of a row's bytes for what keeps them, such as a browser, in 32 hexadecimal digits.

    None: the row has no digest.
    """
    if row.digest is None or not is_of_ends(row.digest):
        return row.digest
    return hashlib.blake2b(f"{row.digest} {row.modified}".encode(), digest_size=16).hexdigest()
