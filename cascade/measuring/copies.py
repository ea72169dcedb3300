"""Which images of a collection are copies of each other: files of the same bytes."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

from cascade.photos.identity import is_of_ends
from cascade.photos.reading import digest_at
from cascade.storing.rows import ImageRow


def copies_of(
    rows: Iterable[ImageRow], digest: Callable[[ImageRow], str | None] = digest_at
) -> dict[str, set[str]]:
    """The keys of the images with the same bytes, itself among them, by key.

    An image of which only the ends are known is read if another has the same ends, or the same
    size and a digest of the whole; if it can't be read, it is nobody's copy. Skipped images, and
    those without a digest, are left out.

    Args:
        rows: of the images.
        digest: the digest of all bytes of an image; None if they can't be read.
    """
    known = [row for row in rows if row.reason is None and row.digest is not None]
    alike = Counter(row.digest for row in known)
    sizes = {row.size for row in known if not is_of_ends(row.digest)}
    same: defaultdict[str, set[str]] = defaultdict(set)
    for row in known:
        whole = str(row.digest)
        if is_of_ends(whole) and (alike[whole] > 1 or row.size in sizes):
            whole = digest(row) or f"unreadable {row.key}"
        same[whole].add(row.key)
    return {key: keys for keys in same.values() for key in keys}
