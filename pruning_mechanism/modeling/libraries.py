"""Optional libraries that towers of a composed CLIP may come from.

Part of every checkpoint of such a model, beside `composed_encoders`.
"""

from typing import Any

Module = Any
"""A module of another library, whose classes share no base class that names their parts."""

NEEDED = "pip install 'clip-cascade[train]'"


def library(name: str) -> Module:
    """An optional library.

    Raises:
        ValueError: it isn't installed.
    """
    try:
        return __import__(name)
    except ImportError as error:
        raise ValueError(f"this model needs {name}: {NEEDED}") from error
