"""Labelled images for classification: a folder, or a data set of the Hugging Face hub.

Beside `corpora.loading`, which loads images with captions. What reads files is in
`corpora.readers`; what the classes mean to a text tower is decided in `evaluation.classifying`.
"""

from pathlib import Path

from corpora.loading import source_of
from corpora.problems import CorpusError, Problems
from corpora.readers.class_names import fitted, names_of, read_class_names
from corpora.readers.labelled_folder import LAYOUT, load_labelled_folder
from corpora.readers.labelled_hub import Columns, load_labelled_hub
from corpora.readers.labels import Labelled, Names
from corpora.splits import checked

__all__ = [
    "Columns", "Labelled", "Names", "fitted", "load_labelled", "names_of", "read_class_names",
]  # fmt: skip

ANY = Columns()


def load_labelled(
    name: str,
    directory: str | Path | None = None,
    split: str | None = None,
    columns: Columns = ANY,
) -> Labelled:
    """Load one split of a labelled data set.

    Args:
        name: "folder", or "hub:owner/name" ("hub" with a directory in the hub's layout).
        directory: where the files lie; for a hub name, a local copy to use instead.
        split: train, validation (the default) or test; validation and test stand in for each
            other, and a data set with just one split is taken whole.
        columns: what a hub data set calls its columns.

    Returns:
        The images that have a label. Those that can't be decoded are still among them
        (`corpora.drop_unreadable`). What is left out is said as `CorpusWarning`.

    Raises:
        CorpusError: there is no such data set or split, or it has no images or labels.
    """
    split = checked(split)
    with Problems() as problems:
        if name != "folder":
            return load_labelled_hub(source_of(name, directory), split, problems, columns)
        if directory is None:
            raise CorpusError(f"folder needs a directory that holds {LAYOUT}")
        if not Path(directory).is_dir():
            raise CorpusError(f"{directory}: no such directory; expected one with {LAYOUT}")
        return load_labelled_folder(Path(directory), split, problems)
