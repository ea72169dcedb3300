"""Reads the text files that publishers ship with their images, line by line, whatever their ends.

Byte-order marks, Windows line ends and bytes that aren't UTF-8 are met here, so that the parsers of
the single corpora see clean text with line numbers.
"""

import ast
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from corpora.problems import CorpusError, Problems

# A quoted text of a list, and what stands between it and the next one.
_QUOTED = re.compile(
    r"""('(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*")\s*(?:,\s*(?=['"])|(?=['"])|,?\s*$)""", re.DOTALL
)


def lines(file: Path, problems: Problems) -> Iterator[tuple[int, str]]:
    """Yield (number from 1, text) of each line that isn't blank; report those that aren't UTF-8.

    Raises CorpusError if the file can't be read.
    """
    # Split bytes at \n only: str.splitlines would also cut a caption at U+2028 or a vertical tab.
    for number, raw in enumerate(_bytes(file).split(b"\n"), start=1):
        try:
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r")
        except UnicodeDecodeError:
            problems.add(file, number, "not UTF-8 text")
            continue
        if text.strip():
            yield number, text


def json_object(file: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object; raises CorpusError if it holds anything else."""
    try:
        value = json.loads(_bytes(file).decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise CorpusError(
            f"{file}:{error.lineno}: not JSON ({error.msg}); is the file cut short?"
        ) from error
    except UnicodeDecodeError as error:
        raise CorpusError(f"{file}: not UTF-8 text; is the file damaged?") from error
    except (ValueError, RecursionError) as error:  # numbers too long, lists too deep
        raise CorpusError(f"{file}: not JSON that can be read ({error})") from error
    if not isinstance(value, dict):
        raise CorpusError(f"{file}: holds a JSON {type(value).__name__}, expected an object")
    return value


def caption(text: object) -> str | None:
    """The caption without surrounding blanks; None if it is no text, or none that can be stored."""
    if not isinstance(text, str) or not text.strip():
        return None
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, from a broken escape in JSON
        return None
    return text.strip()


def texts(value: object) -> list[str]:
    """All captions in a text, a list, or COCO's {"raw": …}, however nested.

    A text that is a list written out, as tables write lists ("['a', 'b']", '["a", "b"]'), is that
    list.
    """
    if isinstance(value, dict):
        return texts(value.get("raw") or value.get("caption") or value.get("text"))
    if isinstance(value, list | tuple):
        return [text for item in value for text in texts(item)]
    text = caption(value)
    if text is None:
        return []
    written = _written_list(text)
    return [text] if written is None else [entry for entry in map(caption, written) if entry]


def _written_list(text: str) -> list[str] | None:
    """The texts of a list in JSON, Python or numpy (without commas); None if it isn't one."""
    if not (text.startswith("[") and text.endswith("]")):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return _quoted(text)
    return value if isinstance(value, list) and _only_texts(value) else None


def _only_texts(values: list[Any]) -> bool:
    return bool(values) and all(isinstance(value, str) for value in values)


def _quoted(text: str) -> list[str] | None:
    """The texts of `['a', "b"]`; read as tokens, as Python would join what has no comma between."""
    found, rest = [], text[1:-1].strip()
    while match := _QUOTED.match(rest):
        try:
            found.append(ast.literal_eval(match[1]))
        except (SyntaxError, ValueError):
            return None
        rest = rest[match.end() :]
    return found if found and not rest else None


def find_file(directory: Path, names: Iterable[str], folders: Iterable[str] = ("",)) -> Path | None:
    """The first of `names` that is a file in one of `folders` of the directory."""
    paths = (directory / folder / name for name in names for folder in folders)
    return next((path for path in paths if path.is_file()), None)


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise CorpusError(f"{file}: can't be read ({error.strerror})") from error
