"""Finds the checkpoint that a result was made from, wherever it lies by now.

A record names its base and says what identifies its weights, and no path: results move, and so do
bases. What is found is the base only if its weights are those on record; a checkpoint that merely
has its name never takes its place.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError

from compress.choices import DEMO_MODEL
from compress.errors import UserError
from pruning_mechanism import Compression, TowerError
from pruning_mechanism.checkpoints.checkpoint import weights_fingerprint
from pruning_mechanism.checkpoints.from_open_clip.converting import directory_of
from pruning_mechanism.checkpoints.from_open_clip.naming import is_open_clip
from pruning_mechanism.checkpoints.record import first_line
from pruning_mechanism.user_cache import cache_file, keep

_REVISION = "revision "
_MEMORY = "checkpoints.json"
"""Where this machine's checkpoints are noted, in this user's cache."""
_ABOVE = 3
"""Directories above a result that are looked through, for the base and for what holds it."""
_DIGITS = 12
"""Of a fingerprint, that a message shows."""
_HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]


def find_base(record: Compression, result: str | Path) -> str:
    """Where the checkpoint lies that a result was made from.

    Looked for where this machine last saw it, where an old record says, near the result and near
    the working directory, and in the demo; of a hub's checkpoint the recorded revision is taken.

    Args:
        record: of the result.
        result: its directory.

    Raises:
        UserError: nothing that is found has the weights on record.
    """
    if record.base_fingerprint.startswith(_REVISION):
        return _from_hub(record, result)
    others = []
    for place in dict.fromkeys(_places(record, Path(result))):
        found = _fingerprint(place)
        if found == record.base_fingerprint:
            remember(found, place)
            return str(place)
        if found:
            others.append(f"{place} has other weights ({_short(found)})")
    looked = "; ".join(others) if others else "no directory of that name is near"
    raise UserError(
        f"{result} was made from {_name(record)} ({_short(record.base_fingerprint)}), which isn't "
        f"found: {looked}; name it as the target"
    )


def _places(record: Compression, result: Path) -> Iterator[Path]:
    """Where the base may be, the likeliest first."""
    if is_open_clip(record.base):
        with suppress(TowerError):
            yield Path(directory_of(record.base))
    if known := _remembered().get(record.base_fingerprint):
        yield Path(known)
    recorded = Path(record.base).expanduser()
    if recorded.is_absolute():
        yield recorded
    above = list(result.resolve().parents)
    for place in (Path.cwd(), *above):
        if not recorded.is_absolute():
            yield place / recorded
        yield place / recorded.name
    for place in (Path.cwd(), *above[:_ABOVE]):
        with suppress(OSError):  # not to be read
            yield from sorted(place.glob(f"*/{_literal(recorded.name)}"))
    yield Path(DEMO_MODEL)


def _literal(name: str) -> str:
    """A name as a pattern that nothing else fits."""
    return "".join(f"[{char}]" if char in "*?[" else char for char in name)


def _fingerprint(place: Path) -> str | None:
    """What identifies the weights in a directory; None if it is no checkpoint to be read."""
    with suppress(OSError, TowerError):
        if (place / "config.json").is_file() and any(place.glob("*.safetensors")):
            return weights_fingerprint(place)
    return None


def _short(fingerprint: str) -> str:
    kind, _, digits = fingerprint.partition(" ")
    return f"{kind} {digits[:_DIGITS]}"


def _name(record: Compression) -> str:
    """A base's name; old records have its path."""
    return record.base if record.base_fingerprint.startswith(_REVISION) else Path(record.base).name


def _from_hub(record: Compression, result: str | Path) -> str:
    """The directory of a hub's checkpoint at the recorded revision, fetched if need be."""
    revision = record.base_fingerprint.removeprefix(_REVISION)
    if revision == "unknown":
        raise UserError(
            f"{result} was made from {record.base} at a revision that isn't on record: name the "
            "checkpoint as the target"
        )
    fetch = partial(snapshot_download, record.base, revision=revision, allow_patterns=_HUB_FILES)
    try:
        return fetch()
    except (OSError, ValueError, HfHubHTTPError) as error:
        with suppress(OSError, ValueError):  # before 2.0 the hub's library lists files on the hub
            return fetch(local_files_only=True)
        raise UserError(
            f"{result} was made from {record.base} ({_short(record.base_fingerprint)}), which "
            f"isn't available: {first_line(error)}; name it as the target"
        ) from error


def remember(fingerprint: str, directory: Path | None) -> None:
    """Note in which directory a checkpoint lies, for results that are made from it.

    Only in this user's own cache; a machine where that can't be written does without.
    """
    if directory is None or fingerprint.startswith(_REVISION):
        return
    here, known = str(directory.resolve()), _remembered()
    if known.get(fingerprint) == here:
        return
    content = json.dumps({**known, fingerprint: here}, indent=1)
    keep(_MEMORY, lambda path: path.write_text(content + "\n"))


def _remembered() -> dict[str, str]:
    try:
        content = json.loads(cache_file(_MEMORY).read_text())
    except (OSError, ValueError, RuntimeError):  # RuntimeError: there is no home
        return {}
    if not isinstance(content, dict):
        return {}
    return {key: value for key, value in content.items() if isinstance(value, str)}
