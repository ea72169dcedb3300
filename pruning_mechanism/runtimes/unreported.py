"""Imports OpenVINO and NNCF without their reports: what a user's photos are used for stays here.

Both tell their makers by the network each time that they are imported or convert a model, if
`openvino_telemetry` is there, and do without where it isn't. They look for it while they are
imported.
"""

import importlib
import sys
from importlib.util import find_spec
from threading import Lock
from typing import Any

TELEMETRY = "openvino_telemetry"
_PARTS = {
    "openvino": ("openvino", "openvino.tools.ovc.convert_impl", "openvino.tools.ovc.utils"),
    "nncf": ("nncf", "nncf.telemetry"),
}
"""What is imported with each, since it looks for it as well."""
_lock = Lock()


def unreported(name: str) -> Any:
    """The library "openvino" or "nncf".

    Raises:
        ImportError: it isn't installed.
    """
    with _lock:
        known = sys.modules.get(TELEMETRY)
        sys.modules[TELEMETRY] = None  # type: ignore[assignment]  # so importing it fails
        try:
            made = [importlib.import_module(part) for each in _order(name) for part in _PARTS[each]]
        finally:
            if known is None:
                del sys.modules[TELEMETRY]
            else:
                sys.modules[TELEMETRY] = known
    return next(module for module in made if module.__name__ == name)


def _order(name: str) -> tuple[str, ...]:
    """NNCF imports OpenVINO where it is installed."""
    both = name == "nncf" and find_spec("openvino") is not None
    return ("openvino", name) if both else (name,)
