"""Frozen dataclasses to JSON files and back, strictly.

A report is read by other programs and by people years later, so nothing is guessed: a missing
field, an unknown one, a wrong type, NaN or infinity is an error that names the place. Only a field
that has a default may be missing: records from before there was such a field lack it.
"""

import dataclasses
import json
import math
import os
import secrets
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

Kind = TypeVar("Kind")
Upgrade = Callable[[dict[str, Any]], dict[str, Any]]
"""Makes of a record's JSON object, as one schema has it, what the next schema has.

It changes what it finds and leaves the rest: what is missing or wrong is found by `restored`.
"""


SavedKind = TypeVar("SavedKind", bound="Saved")


class RecordError(ValueError):
    """A record that can't be read, written or used: one line that says why."""


class Saved:
    """A report that is a JSON file: a frozen dataclass with a field `schema`.

    Attributes:
        called: what such a file is called, for error messages.
        version: of its form.
        upgrades: of the older versions that are still read, by their number.
    """

    called: ClassVar[str]
    version: ClassVar[int]
    upgrades: ClassVar[Mapping[int, Upgrade]] = types.MappingProxyType({})

    def save(self, path: str | Path) -> None:
        """Write as JSON, whole or not at all.

        Raises:
            RecordError: a value is NaN or infinite, or isn't what a report holds.
            OSError: the file can't be written.
        """
        save(self, path, self.called)

    @classmethod
    def load(cls: type[SavedKind], path: str | Path) -> SavedKind:
        """Read what `save` wrote, now or under one of the older schemas.

        Raises:
            RecordError: the file isn't such a report, or one with another schema.
            OSError: the file can't be read.
        """
        return read(cls, path, cls.version, cls.called, cls.upgrades)


def save(value: Any, path: str | Path, name: str) -> None:
    """Write a dataclass as a JSON file, whole or not at all.

    Args:
        value: the dataclass.
        path: of the file; directories above it are made.
        name: what such a file is called, for error messages.

    Raises:
        RecordError: as `plain`.
        OSError: the file can't be written.
    """
    path = Path(path)
    text = json.dumps(plain(value, name), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        write_text(temporary, text)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8; bytes of a file's name that are no text as JSON's escapes."""
    path.write_bytes(text.encode("utf-8", "backslashreplace"))


def read(
    kind: type[Kind],
    path: str | Path,
    schema: int,
    name: str,
    upgrades: Mapping[int, Upgrade] = types.MappingProxyType({}),
) -> Kind:
    """The dataclass `kind` in a JSON file.

    Args:
        kind: a dataclass with a field `schema`.
        path: of the file.
        schema: the version of `kind`.
        name: what such a file is called, for error messages.
        upgrades: of the older versions that are still read, by their number.

    Raises:
        RecordError: the file is something else, or has a schema that isn't read.
        OSError: the file can't be read.
    """
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:  # not JSON, or not even text
        raise RecordError(f"{path} is not a {name}: it isn't JSON") from error
    if not isinstance(record, dict) or "schema" not in record:
        raise RecordError(f"{path} is not a {name}: it states no schema version")
    for older in sorted(upgrades):
        if record["schema"] == older:
            record = upgrades[older](record) | {"schema": older + 1}
    if record["schema"] != schema:
        raise RecordError(
            f"{path} is a {name} with schema {record['schema']!r}, but this version reads "
            f"schema {schema}: make the {name} again"
        )
    try:
        found: Kind = restored(kind, record, name)
        return found
    except RecordError as error:
        raise RecordError(f"{path} is not a whole {name}: {error}") from error


def opened(load: Callable[[Path], Kind], path: Path, command: str) -> Kind:
    """What `load` reads from a path that a user named.

    Args:
        load: raises `RecordError` and `OSError`.
        path: of the record.
        command: the module that makes such records, which the error names where there is none.

    Raises:
        RecordError: there is no such record, or it can't be read.
    """
    try:
        return load(path)
    except OSError as error:
        raise RecordError(
            f"{error.filename or path}: {error.strerror}; make one with python -m {command}"
        ) from error


def plain(value: Any, where: str) -> Any:
    """The value as JSON holds it: dataclasses as objects, tuples as lists, keys as strings.

    Args:
        value: a dataclass, or anything that its fields may hold.
        where: the place, for error messages.

    Raises:
        RecordError: NaN, infinity, or something that JSON can't hold.
    """
    if dataclasses.is_dataclass(value):
        return {
            field.name: plain(getattr(value, field.name), f"{where}.{field.name}")
            for field in dataclasses.fields(value)
        }
    if isinstance(value, dict):
        return {str(key): plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item, f"{where}[{place}]") for place, item in enumerate(value)]
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
        (other,) = (member for member in inner if member is not type(None))
        return None if value is None else restored(other, value, where)
    if origin is tuple:
        _expect(isinstance(value, list), "a list", value, where)
        return tuple(
            restored(inner[0], item, f"{where}[{place}]") for place, item in enumerate(value)
        )
    if origin is dict:
        _expect(isinstance(value, dict), "an object", value, where)
        return {
            _key(inner[0], key, where): restored(inner[1], item, f"{where}.{key}")
            for key, item in value.items()
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
    fields = {field.name: field for field in dataclasses.fields(kind)}
    absent = [field for name, field in fields.items() if name not in value]
    if missing := [field.name for field in absent if field.default is dataclasses.MISSING]:
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
