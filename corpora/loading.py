"""Loading a corpus by its name: which reader, which directory, which split.

Where `corpora.load_corpus` is; above the readers of what publishers ship.
"""

import os
from pathlib import Path

from datasets import Dataset

from corpora.problems import CorpusError, Problems
from corpora.readers import coco, flickr, folder
from corpora.readers.hub import load_hub
from corpora.readers.rows import dataset_of
from corpora.readers.walking import storable
from corpora.scenes import load_scenes
from corpora.splits import checked, resolve

# Parsers of what lies in a directory, with the layout that they expect.
PARSERS = {
    "coco": (coco.load_coco, coco.LAYOUT),
    "flickr30k": (flickr.load_flickr30k, flickr.LAYOUT_30K),
    "flickr8k": (flickr.load_flickr8k, flickr.LAYOUT_8K),
    "folder": (folder.load_folder, folder.LAYOUT),
}
# Those that can do without captions.
UNCAPTIONED = {"folder": folder.load_images}
CORPORA = ("scenes", *PARSERS, "hub")


def load_corpus(
    name: str,
    directory: str | Path | None = None,
    split: str | None = None,
    captions: bool = True,
) -> Dataset:
    """Load one split of a corpus: columns image (decoded when asked for), captions, key (unique).

    `name` is one of `CORPORA`, `hub:owner/name`, or `owner/name` alone; `directory` is where its
    files lie (for a hub name, a local copy to use instead); `split` is train, validation (the
    default) or test. Train and the held-out splits share no image, and each is the same every time.
    With `captions` False, folder and hub give images without a caption too; their list is empty.

    Malformed lines, images that aren't on disk or lie outside of the directory, copies and files of
    other kinds are left out and reported as `CorpusWarning`, with file and line.

    Raises CorpusError, in one line, if the name or split is unknown, files are missing, or no image
    (with a caption, if these are asked for) is left.
    """
    split = checked(split)
    if name == "scenes":
        return _scenes(directory, split)
    is_hub = name == "hub" or name.startswith("hub:") or "/" in name
    if not is_hub and name not in PARSERS:
        raise CorpusError(
            f"no corpus is called {name!r}; choose one of {', '.join(CORPORA)}, or hub:owner/name"
        )
    with Problems() as problems:
        if is_hub:
            corpus = load_hub(source_of(name, directory), split, problems, captions)
        else:
            corpus = _from_directory(name, directory, split, problems, captions)
        if len(corpus) == 0:
            raise CorpusError(
                f"{name} ({directory or 'hub'}): no image{' with a caption' * captions} is left in "
                f"{split}: "
                f"{len(problems.lines):,} malformed lines, {problems.missing:,} images that aren't "
                f"on disk; the warnings name them"
            )
    return corpus


def _scenes(directory: str | Path | None, split: str) -> Dataset:
    if directory is not None:
        raise CorpusError(f"scenes are generated and read no directory; leave out {directory}")
    return load_scenes(split=resolve(split, ("train", "validation"), "scenes"))


def _from_directory(
    name: str, directory: str | Path | None, split: str, problems: Problems, captions: bool
) -> Dataset:
    parse, layout = PARSERS[name]
    if not captions:
        parse = UNCAPTIONED.get(name, parse)
    if directory is None:
        raise CorpusError(f"{name} needs a directory that holds {layout}")
    if not Path(directory).is_dir():
        raise CorpusError(f"{directory}: no such directory; {name} expects one with {layout}")
    directory = Path(directory)
    if not storable(str(directory.absolute())):
        raise CorpusError(f"{str(directory)!r}: this directory's name isn't UTF-8 text; rename it")
    return dataset_of(parse(directory, split, problems), directory, problems)


def source_of(name: str, directory: str | Path | None) -> str:
    """A local directory as an absolute path, or a name on the hub: never one for the other."""
    if directory is not None:
        if not Path(directory).is_dir():
            raise CorpusError(
                f"{directory}: no such directory; expected parquet files or imagefolder"
            )
        return os.path.abspath(directory)
    source = name.removeprefix("hub:")
    if source in ("", "hub"):
        raise CorpusError("hub needs a name, as in hub:owner/name, or a directory in its layout")
    if source.startswith((".", "~")) or os.path.isabs(source):
        path = os.path.expanduser(source)
        if not Path(path).is_dir():
            raise CorpusError(f"{source}: no such directory; expected parquet files or imagefolder")
        return os.path.abspath(path)
    if Path(source).is_dir():
        raise CorpusError(
            f"{source}: is a directory here and may be a data set of the hub too; say "
            f"hub:./{source} (or --corpus hub --corpus-dir {source}) for the directory, or start "
            "elsewhere for the hub's"
        )
    return source
