"""Frozen dataclasses to plain JSON values and back, strictly.

A report is read by other programs and by people years later, so nothing is guessed: a missing
field, an unknown one, a wrong type, NaN or infinity is an error that names the place. Only a field
that has a default may be missing: records from before there was such a field lack it.
"""

import dataclasses
import json
import math
import types
import typing
from pathlib import Path
from typing import Any


class RecordError(ValueError):
    """What was read, or is to be written, isn't the record that it should be."""


def written(value: Any, where: str) -> str:
    """The text of a JSON file that holds the value.

    Raises:
        RecordError: as `plain`.
    """
    return json.dumps(plain(value, where), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8; bytes of a file's name that are no text as JSON's escapes."""
    path.write_bytes(text.encode("utf-8", "backslashreplace"))


def read(kind: Any, path: str | Path, schema: int, name: str) -> Any:
    """The dataclass `kind` in a JSON file that states this schema version.

    Args:
        kind: a dataclass with a field `schema`.
        path: of the file.
        schema: the version that is read.
        name: what such a file is called, for error messages.

    Raises:
        RecordError: the file is something else, or has another schema.
        OSError: the file can't be read.
    """
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:  # not JSON, or not even text
        raise RecordError(f"{path} is not a {name}: it isn't JSON") from error
    if not isinstance(record, dict) or "schema" not in record:
        raise RecordError(f"{path} is not a {name}: it states no schema version")
    if record["schema"] != schema:
        raise RecordError(
            f"{path} is a {name} with schema {record['schema']!r}, but this version reads "
            f"schema {schema}: make the {name} again"
        )
    try:
        return restored(kind, record, name)
    except RecordError as error:
        raise RecordError(f"{path} is not a whole {name}: {error}") from error


def plain(value: Any, where: str) -> Any:
    """The value as JSON holds it: dataclasses as objects, tuples as lists, keys as strings.

    Args:
        value: a dataclass, or anything that its fields may hold.
        where: the place, for error messages.

    Raises:
        RecordError: NaN, infinity, or something that JSON can't hold.
    """
    if dataclasses.is_dataclass(value):
        fields = dataclasses.fields(value)
        return {
            each.name: plain(getattr(value, each.name), f"{where}.{each.name}") for each in fields
        }
    if isinstance(value, dict):
        return {str(key): plain(each, f"{where}.{key}") for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [plain(each, f"{where}[{place}]") for place, each in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise RecordError(f"{where} is {value}, which can't be reported: it must be finite")
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise RecordError(f"{where} is a {type(value).__name__}, which a report can't hold")


def restored(kind: Any, value: Any, where: str) -> Any:
    """The inverse of `plain`: the value as the type annotation `kind` says.

    Args:
        kind: a dataclass, str, int, float, bool, `X | None`, `tuple[X, …]` or `dict[K, X]`.
        value: what JSON gave.
        where: the place, for error messages.

    Raises:
        RecordError: the value isn't of that kind.
    """
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        (other,) = (each for each in inner if each is not type(None))
        return None if value is None else restored(other, value, where)
    if origin is tuple:
        _expect(isinstance(value, list), "a list", value, where)
        return tuple(restored(inner[0], each, f"{where}[{i}]") for i, each in enumerate(value))
    if origin is dict:
        _expect(isinstance(value, dict), "an object", value, where)
        return {
            _key(inner[0], key, where): restored(inner[1], each, f"{where}.{key}")
            for key, each in value.items()
        }
    if dataclasses.is_dataclass(kind):
        return _restored_dataclass(kind, value, where)
    if kind is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        _expect(number and math.isfinite(value), "a finite number", value, where)
        return float(value)
    _expect(type(value) is kind, kind.__name__, value, where)
    return value


def _restored_dataclass(kind: Any, value: Any, where: str) -> Any:
    _expect(isinstance(value, dict), "an object", value, where)
    kinds = typing.get_type_hints(kind)
    fields = {each.name: each for each in dataclasses.fields(kind)}
    absent = [each for name, each in fields.items() if name not in value]
    if missing := [each.name for each in absent if each.default is dataclasses.MISSING]:
        raise RecordError(f"{where} lacks {', '.join(missing)}")
    if unknown := [name for name in value if name not in fields]:
        raise RecordError(f"{where} has fields that schema doesn't know: {', '.join(unknown)}")
    return kind(**{name: restored(kinds[name], value[name], f"{where}.{name}") for name in value})


def _key(kind: type, key: str, where: str) -> Any:
    try:
        return kind(key)
    except ValueError as error:
        raise RecordError(f"{where} has the key {key!r}, expected {kind.__name__}") from error


def _expect(right: bool, expected: str, value: Any, where: str) -> None:
    if not right:
        raise RecordError(f"{where} should be {expected}, but is {value!r:.60}")
