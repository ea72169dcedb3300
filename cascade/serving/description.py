"""The page that describes the API, made from its OpenAPI description; it loads nothing else."""

import html
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

_PAGE = """<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root {{ color-scheme: light dark; font-family: sans-serif; line-height: 1.4 }}
body {{ max-width: 50rem; margin: 0 auto; padding: 1rem }}
td, th {{ text-align: left; vertical-align: top; padding: .1rem .8rem .1rem 0 }}
</style>
<h1>{title}</h1>
<p>{text}</p>
<p>For programs: <a href="/openapi.json">/openapi.json</a></p>
{parts}
</html>
"""

_LIMITS = ("minimum", "maximum", "minLength", "maxLength", "maxItems", "default")


def page(description: Mapping[str, Any]) -> str:
    """The page of an OpenAPI description."""
    parts = [
        part
        for path, operations in description["paths"].items()
        for method, operation in operations.items()
        for part in _operation(method, path, operation)
    ]
    parts.append("<h2>What is sent and answered</h2>")
    for name, schema in description["components"]["schemas"].items():
        parts.append(f'<h3 id="{html.escape(name)}">{html.escape(name)}</h3>')
        parts.append(f"<p>{html.escape(schema.get('description', ''))}</p>")
        fields = schema.get("properties", {}).items()
        rows = [(field, _kind(each), each.get("description", "")) for field, each in fields]
        parts.append(_table(rows))
    info = description["info"]
    return _PAGE.format(
        title=html.escape(info["title"]),
        text=html.escape(info["description"]),
        parts="\n".join(parts),
    )


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"<h2><code>{method.upper()} {html.escape(path)}</code></h2>"
    yield f"<p>{html.escape(operation.get('description', operation['summary']))}</p>"
    rows = [
        (parameter["name"], parameter["in"], parameter.get("description", ""))
        for parameter in operation.get("parameters", ())
    ]
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        rows.append(("body", kind, _named(content.get("schema", {}))))
    for status, answer in operation["responses"].items():
        kinds = answer.get("content", {})
        named = ", ".join(filter(None, (_named(each.get("schema", {})) for each in kinds.values())))
        rows.append((status, ", ".join(kinds), f"{answer['description']} {named}"))
    yield _table(rows)


def _table(rows: Iterable[Sequence[str]]) -> str:
    cells = ("".join(f"<td>{_linked(cell)}</td>" for cell in row) for row in rows)
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"


def _kind(schema: Mapping[str, Any]) -> str:
    """What a field may be: its type, and its limits."""
    if "anyOf" in schema:
        return " or ".join(_kind(each) for each in schema["anyOf"])
    limits = [f"{name} {schema[name]}" for name in _LIMITS if name in schema]
    items = [f"of {_kind(schema['items'])}"] if "items" in schema else []
    return ", ".join([schema.get("type", _named(schema)), *items, *limits])


def _named(schema: Mapping[str, Any]) -> str:
    name: str = schema.get("$ref", "").rpartition("/")[2]
    return f"#{name}" if name else ""


def _linked(cell: str) -> str:
    return re.sub(r"#(\w+)", r'<a href="#\1">\1</a>', html.escape(cell, quote=False))
