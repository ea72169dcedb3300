"""Which files belong to a finished result, so that `--overwrite` never deletes anything else.

Each result holds a marker file that lists its files. Older results have no marker; they are
recognised by their record and by the file names that were in use then.
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
"""Records by which a result without a marker is recognised, and the entries that they must hold."""
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
"""How many file names a message shows."""


def files_in(directory: Path) -> list[str]:
    """The paths of all files below a directory, relative to it, except its marker.

    Symbolic links are not followed. An empty directory counts as a file.
    """
    found = []
    for parent, directories, files in os.walk(directory):
        links = [child for child in directories if (Path(parent) / child).is_symlink()]
        for name in (*files, *links):
            found.append((Path(parent) / name).relative_to(directory).as_posix())
        if not directories and not files and Path(parent) != directory:
            found.append(Path(parent).relative_to(directory).as_posix())  # an empty directory
    return sorted(file for file in found if file != MARKER)


def mark(directory: Path) -> None:
    """Record that everything now in a directory belongs to a result."""
    _write_marker(directory, files_in(directory))


def add(directory: Path, names: Iterable[str]) -> None:
    """Record that files, for instance pictures, belong to the result whose directory they are in.

    Does nothing if the directory is in no result.
    """
    for place in (directory, *directory.resolve().parents):
        known = _marked(place)
        if known is not None:
            own = [(directory.resolve() / name).relative_to(place.resolve()) for name in names]
            _write_marker(place, sorted({*known, *(path.as_posix() for path in own)}))
            return


def foreign(directory: Path) -> list[str] | None:
    """The files in a result that don't belong to it; None if the directory isn't a result."""
    present = files_in(directory)
    known = _marked(directory)
    if known is not None:
        return [file for file in present if file not in known]
    if not present and not (directory / MARKER).exists():
        return []
    if not _is_old_result(directory):
        return None
    return [file for file in present if not _is_old_name(directory, Path(file))]


def why_not_replaced(path: Path, carried: Collection[str] = ()) -> str | None:
    """Why a result must not replace a directory or file; None if it may.

    Files that are `carried` over into the new result don't stand in the way.
    """
    if not os.path.lexists(path):
        return None
    if not path.is_dir():
        return f"{path} is a file, not a result: choose another --output"
    others = foreign(path)
    if others is not None:
        others = [file for file in others if file not in carried]
    if others is None:
        return f"{path} is not an earlier result and is not overwritten: choose another --output"
    if others:
        more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
        return (
            f"{path} is not overwritten, because it holds files that don't belong to the earlier "
            f"result: {', '.join(others[:_SHOWN])}{more}; move them or choose another --output"
        )
    return None


def _write_marker(directory: Path, files: list[str]) -> None:
    content = {"made_by": MADE_BY, "schema": 1, "files": files}
    written = directory / f"{MARKER}.partial"
    written.write_text(json.dumps(content, indent=1) + "\n")
    written.replace(directory / MARKER)


def _marked(directory: Path) -> set[str] | None:
    """The files that a directory's marker lists; None if it has no valid marker."""
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
    """Whether an older result may have held a file of this name.

    An experiment keeps its stages in `stages/NAME/`.
    """
    inside = len(name.parts) == 3 and name.parts[0] == "stages"
    if len(name.parts) > 1 and not (inside and (directory / "report.json").is_file()):
        return False
    return bool(_OLD_NAMES.fullmatch(name.name))
