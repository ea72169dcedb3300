"""How much of a file a stage reads: what its checkpoint's record says."""

from pathlib import Path

from corpora.decoding.reads import Reads, known
from pruning_mechanism import TowerError, read_record
from pruning_mechanism.checkpoints.from_open_clip.converting import directory_of


def reads_of(path: str | Path) -> Reads:
    """What the record in a checkpoint's directory says; in full where there is none.

    Raises:
        TowerError: the record is damaged, or names a way to read that isn't known here.
    """
    record = read_record(directory_of(path))
    try:
        return "full" if record is None else known(record.reads)
    except ValueError as error:
        raise TowerError(f"the record of {path} can't be followed: {error}") from error
