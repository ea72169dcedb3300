"""The search under a share of all seconds from file to embedding, on a person's own files.

Reading less of a file, and smaller images, leave more to the encoder; each such way is searched
with what it leaves, on calibration images that are read so, and they compete by what the aligned
embedding loses to the full tower's, whose files are read in full.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from compress.budgets.settings import Setting
from compress.errors import UserError
from compress.making.source import Source
from compress.searching.found import Chosen, Found
from compress.searching.latency import full_tower, within
from compress.searching.search import Search
from compress.searching.ways import Way, opened, promising
from corpora.decoding.reads import Reads
from corpora.readers.places import Sample


def from_files(
    sources: Mapping[Setting | None, Source], search: Search, sample: Sample, reads: Sequence[Reads]
) -> Found:
    """The way to read whose best combination loses least; seconds are those from file on.

    Args:
        sources: the tower, under None, and it with smaller images, by what made them so.
        search: what is looked for.
        sample: files that decide what reading takes.
        reads: how files may be read.

    Raises:
        UserError: no way leaves a tower enough.
    """
    source = sources[None]
    full = full_tower(source, search.deployment)
    ways = {
        Way(read, images): smaller.processor
        for images, smaller in sources.items()
        for read in reads
    }
    opening = source.cache.once(("opened", sample, tuple(ways)), lambda: opened(sample, ways, full))
    left, others = promising(opening, search.budget.share)
    found: dict[Way, Found] = {}
    for way, of_encoder in left.items():
        own = sources[way.images].reading(way.reads)
        try:
            found[way] = within(own, full, of_encoder, search)
        except UserError as error:
            others[way] = str(error).removeprefix(f"{search.label}: ")
        if search.forgetting:
            own.cache.forget()
    if not found:
        reasons = "; ".join(f"{way.says}: {reason}" for way, reason in others.items())
        raise UserError(f"{search.label} leaves no tower enough, from file to embedding: {reasons}")
    best = min(found, key=lambda way: found[way].best.lost)
    for way in found.keys() - {best}:
        others[way] = (
            f"lost {found[way].best.lost:.4f} where {best.says} lost {found[best].best.lost:.4f}"
        )
    return replace(found[best], chosen=Chosen(best, opening, others))
