"""What a finished result consists of, so that `--overwrite` never deletes anything else.

Each result holds a marker that lists its files. Results from before there was one are known by
their record, and by names that were written then.
"""

import json
import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path

MARKER = ".clip-cascade.json"
MADE_BY = "clip-cascade"

_OLD_RECORDS = {
    "compression.json": {"rule", "constraint", "base", "macs"},
    "report.json": {"schema", "reference", "rows"},
    "seeds.json": {"schema", "seeds", "rows"},
    "patches.json": {"schema", "keys", "stages"},
}
"""Files that a result from before the marker is known by, and entries that they hold."""
_OLD_NAMES = re.compile(
    r"""(config|generation_config|preprocessor_config|processor_config|compression|report|seeds
        |patches|joint|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab
        |model\.safetensors\.index|(repair|curves|latency)(-text)?|latency-\d+-tokens)\.json
      |model(-\d+-of-\d+)?\.safetensors|mask(-text)?\.safetensors
      |merges\.txt|calibration\.txt|vocab\.txt|spiece\.model|chat_template\.(jinja|json)
      |(report|seeds|equal_time)\.md|image-\d+(-\d+)?\.png
      |(mask|repair|pareto|masking|patches|(recall|agreement)-(speedup|macs))\.(png|svg)
      |(modeling_pruned_clip|attention|heads|pruned_layers|reduced_tower|reduction|tokens
        |processor)\.py""",
    re.VERBOSE,
)
_SHOWN = 3
"""Names of files that a message shows."""


def files_in(directory: Path) -> list[str]:
    """Names of all that is below a directory, relative to it, but its marker; links as they are."""
    found = []
    for parent, directories, files in os.walk(directory):
        links = [each for each in directories if (Path(parent) / each).is_symlink()]
        for name in (*files, *links):
            found.append((Path(parent) / name).relative_to(directory).as_posix())
        if not directories and not files and Path(parent) != directory:
            found.append(Path(parent).relative_to(directory).as_posix())  # an empty directory
    return sorted(each for each in found if each != MARKER)


def mark(directory: Path) -> None:
    """Write down that all that is in a directory now belongs to a result."""
    _write_marker(directory, files_in(directory))


def add(directory: Path, names: Iterable[str]) -> None:
    """Write down that files in a directory, pictures of it, belong to the result that it is of.

    Nothing is done if it is of none.
    """
    for place in (directory, *directory.resolve().parents):
        known = _marked(place)
        if known is not None:
            own = [(directory.resolve() / each).relative_to(place.resolve()) for each in names]
            _write_marker(place, sorted({*known, *(each.as_posix() for each in own)}))
            return


def foreign(directory: Path) -> list[str] | None:
    """What is in a result but doesn't belong to it; None if the directory is no result of ours."""
    present = files_in(directory)
    known = _marked(directory)
    if known is not None:
        return [each for each in present if each not in known]
    if not present and not (directory / MARKER).exists():
        return []
    if not _is_old_result(directory):
        return None
    return [each for each in present if not _is_old_name(directory, Path(each))]


def why_not_replaced(path: Path, carried: Collection[str] = ()) -> str | None:
    """Why a directory or file must not be replaced by a result; None if it may be.

    Files that are `carried` over into the new result may be in it.
    """
    if not os.path.lexists(path):
        return None
    if not path.is_dir():
        return f"{path} is a file, not a result: name another --output"
    others = foreign(path)
    if others is not None:
        others = [each for each in others if each not in carried]
    if others is None:
        return f"{path} is no earlier result, so it is not overwritten: name another --output"
    if others:
        more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
        return (
            f"{path} is not overwritten, because not all in it is of the earlier result: "
            f"{', '.join(others[:_SHOWN])}{more}; move that elsewhere or name another --output"
        )
    return None


def _write_marker(directory: Path, files: list[str]) -> None:
    content = {"made_by": MADE_BY, "schema": 1, "files": files}
    written = directory / f"{MARKER}.partial"
    written.write_text(json.dumps(content, indent=1) + "\n")
    written.replace(directory / MARKER)


def _marked(directory: Path) -> set[str] | None:
    """The files that a directory's marker lists; None if it has no valid one."""
    try:
        content = json.loads((directory / MARKER).read_text())
        return set(content["files"]) if content["made_by"] == MADE_BY else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_old_result(directory: Path) -> bool:
    for name, entries in _OLD_RECORDS.items():
        try:
            content = json.loads((directory / name).read_text())
        except (OSError, ValueError):
            continue
        if isinstance(content, dict) and entries <= content.keys():
            return True
    return files_in(directory) == ["equal_time.md"]


def _is_old_name(directory: Path, name: Path) -> bool:
    """Whether a file has a name that was written; those of an experiment's stages are in rooms."""
    inside = len(name.parts) == 3 and name.parts[0] == "stages"
    if len(name.parts) > 1 and not (inside and (directory / "report.json").is_file()):
        return False
    return bool(_OLD_NAMES.fullmatch(name.name))
