"""Files that say what classes are called: `classes.json`, or a list that a user wrote.

A class may have several names, which mean the same: ImageNet's classes have synonyms.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from corpora.problems import CorpusError, Problems
from corpora.readers.labels import Names
from corpora.readers.reading import lines

CLASSES = "classes.json"
FORMS = (
    'a name a line, or JSON: a list of names or of lists of synonyms, {"names": such a list}, or '
    "{published name: name or synonyms}"
)


def read_class_names(file: Path) -> Names | dict[str, tuple[str, ...]]:
    """The names in a file: by number, or by what the publisher calls a class.

    Raises:
        CorpusError: the file can't be read, or holds something else or nothing.
    """
    with Problems() as problems:
        texts = [text.strip() for _, text in lines(file, problems)]
    if file.suffix.lower() != ".json":
        return names_of(texts, file)
    try:
        value = json.loads("\n".join(texts))
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{file}: not JSON ({error}); expected {FORMS}") from error
    if isinstance(value, dict) and isinstance(value.get("names"), list):
        value = value["names"]
    if isinstance(value, dict) and value:
        return dict(zip(value, names_of(list(value.values()), file), strict=True))
    return names_of(value, file)


def names_of(value: object, where: object) -> Names:
    """The names of each class, from a list of names or of lists of synonyms.

    Raises:
        CorpusError: it is none, or a class has no name.
    """
    if not isinstance(value, list) or not value:
        raise CorpusError(f"{where}: holds no class names; expected {FORMS}")
    found = []
    for number, entry in enumerate(value):
        synonyms = entry if isinstance(entry, list) else [entry]
        if not synonyms or not all(isinstance(name, str) and name.strip() for name in synonyms):
            raise CorpusError(f"{where}: class {number} has no name, but {entry!r:.60}")
        found.append(tuple(dict.fromkeys(name.strip() for name in synonyms)))
    return tuple(found)


def fitted(
    names: Names | Mapping[str, tuple[str, ...]], published: Sequence[str] | None, where: object
) -> Names:
    """Names by the number of the class.

    Args:
        names: by number, or by what the publisher calls a class.
        published: what the publisher calls each class, where that is known.
        where: the names are from.

    Raises:
        CorpusError: a class of the data set has no name, or there are names for other classes.
    """
    if not isinstance(names, Mapping):
        if published is not None and len(names) != len(published):
            raise CorpusError(
                f"{where}: {len(names):,} class names, but the data set has {len(published):,} "
                f"classes ({published[0]}, …, {published[-1]})"
            )
        return names
    if published is None:
        raise CorpusError(
            f"{where}: names by published name, but the labels of this data set are numbers alone; "
            "list the names in their order"
        )
    if missing := [name for name in published if name not in names]:
        raise CorpusError(f"{where}: no name for {len(missing):,} classes (first: {missing[0]})")
    return tuple(names[name] for name in published)
