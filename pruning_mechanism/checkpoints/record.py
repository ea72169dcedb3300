"""How a smaller tower was made: the record beside its weights.

`Compression` is what is written; `read_record` reads it back and believes nothing that it has not
checked, since anyone may have edited the file.
"""

import json
import platform
from dataclasses import MISSING, dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pruning_mechanism.families import TowerError
from pruning_mechanism.modeling.checks import is_number

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

RECORD = "compression.json"
"""What the record's file is called, in the directory of the tower that it is about."""

LONGEST = 400
"""Characters of another library's error that are shown: it may quote a whole file."""
Entries = TypeVar("Entries", bound="DataclassInstance")


@dataclass(frozen=True)
class Compression:
    """How a smaller tower was made; `compression.json` holds just these entries.

    `tower` says which was made smaller: vision, text or both. MACs and parameters are its own; of
    both, the sums for one image and one text as long as the context. `align` says how the
    projection was aligned to the full tower's embeddings, `chain` all that was done to the base,
    this rule included. `reads` says how much of a file it was made to read, "full", "scaled" or
    "thumbnail", and `runtime` and `dtype` what it was made to run in, as `Stage.load` names them
    (`dtype` None: what the runtime does by itself), which a stage of it does unless told otherwise.
    `settings` are the command's flags, `notes` what didn't go as planned.
    """

    rule: str
    constraint: str
    repair: str
    base: str
    base_fingerprint: str
    corpus: str
    samples: int
    seed: int
    macs: int
    mac_fraction: float
    tower_macs: int
    parameters: int
    seconds: float
    tower: str = "vision"
    align: str = "none"
    reads: str = "full"
    runtime: str = "torch"
    dtype: str | None = None
    chain: tuple[str, ...] = ()
    settings: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    unreadable_images: tuple[str, ...] = ()
    versions: dict[str, str] = field(
        default_factory=lambda: {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "transformers", "torch-pruning")},
        }
    )

    @property
    def steps(self) -> tuple[str, ...]:
        """What was done to the base, in order; pruning, which comes first, writes no chain."""
        return self.chain or (f"{self.rule} {self.constraint}",)


def read_record(directory: str | Path) -> Compression | None:
    """The record of the tower in a directory; None if there is none, as in checkpoints of others.

    Entries that this version doesn't know are left out, and those that an earlier one didn't write
    have their defaults; `versions` are empty.

    Raises:
        TowerError: the file can't be read, isn't JSON, or an entry is missing or of another kind.
    """
    path = Path(directory) / RECORD
    return read_fields(path, Compression, versions={}) if path.is_file() else None


def read_fields(path: str | Path, kind: type[Entries], **absent: object) -> Entries:
    """Read a dataclass from a JSON file whose entries have the names and types of its fields.

    Args:
        path: the file; entries of other names are ignored.
        kind: the dataclass.
        absent: values of fields that the file doesn't name, instead of their defaults.

    Raises:
        TowerError: the file can't be read, isn't JSON, or an entry is missing or of another kind.
    """
    entries, hints, known = read_object(path), get_type_hints(kind), dict(absent)
    for attribute in fields(kind):
        if attribute.name in entries:
            known[attribute.name] = _value(
                path, attribute.name, entries[attribute.name], hints[attribute.name]
            )
        elif attribute.default is MISSING and attribute.default_factory is MISSING:
            raise TowerError(
                f"{path} has no entry {attribute.name!r}: it is no record of this project"
            )
    return kind(**known)


def read_object(path: str | Path) -> dict[str, Any]:
    """Read a JSON file that must hold an object.

    Raises:
        TowerError: the file can't be read, isn't UTF-8 or JSON, or holds something else.
    """
    try:
        content = json.loads(Path(path).read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise TowerError(f"{path} can't be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # also what isn't UTF-8
        raise TowerError(f"{path} is not JSON: {first_line(error)}") from error
    if not isinstance(content, dict):
        raise TowerError(f"{path} must hold a JSON object, found {_kind(content)}")
    return content


def _value(path: str | Path, name: str, value: object, hint: object) -> object:
    """An entry as its field has it: lists become tuples; `TowerError` if it is of another kind."""
    if not _fits(value, hint):
        wanted = getattr(hint, "__name__", hint) if get_origin(hint) is None else hint
        raise TowerError(f"{path}: {name} must be {wanted}, found {_kind(value)}")
    return tuple(value) if isinstance(value, list) else value


def _fits(value: object, hint: object) -> bool:
    """Whether a value from JSON is of the kind that a field's annotation names."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, argument) for argument in arguments)
    if origin is tuple:
        return isinstance(value, list) and all(_fits(item, arguments[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(item, arguments[1]) for item in value.values())
    if hint is NoneType:
        return value is None
    if hint is float:
        return is_number(value) and abs(value) <= 1e300
    return type(value) is hint


def _kind(value: object) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 40 else text[:37] + '...'}"


def first_line(error: Exception) -> str:
    """An error's message in one line: its first, with the next if the first ends in a colon."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    message = " ".join(lines[: 2 if lines[0].endswith(":") else 1])
    return message if len(message) <= LONGEST else message[: LONGEST - 3] + "..."
