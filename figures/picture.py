"""Where a picture is written: NAME.png and NAME.svg, each whole or not at all.

The last step of every figure command; the same figure gives the same bytes.
"""

import io
from pathlib import Path

import matplotlib.style
from matplotlib.figure import Figure

from compress.command import UserError
from figures.style import SETTINGS

_METADATA = {"png": {"Software": None}, "svg": {"Date": None}}


def refuse_existing(directory: Path, name: str, overwrite: bool) -> None:
    """Refuse, before any work, to replace a picture.

    Raises:
        UserError: a picture of that name is there and not to be overwritten.
    """
    for kind in _METADATA:
        path = directory / f"{name}.{kind}"
        if path.exists() and not overwrite:
            raise UserError(f"{path} exists already: name another --output or pass --overwrite")


def settle_layout(figure: Figure) -> None:
    """Lay a figure out once and for all, to a pixel or two.

    The solver's last bits differ from one run to the next, and the names in an svg with them: of
    the axes, and of the subfigures that they lie in.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for part in figure.subfigs:
        part.bbox_relative.set_points(part.bbox_relative.get_points().round(3))
    for axes in figure.axes:
        axes.set_position([round(float(edge), 3) for edge in axes.get_position().bounds])


def save_picture(figure: Figure, directory: Path, name: str) -> list[Path]:
    """Write `name`.png and `name`.svg into a directory, made if need be.

    Raises:
        OSError: the directory can't be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    with matplotlib.style.context(SETTINGS, after_reset=True):
        for kind, metadata in _METADATA.items():
            picture = io.BytesIO()
            figure.savefig(picture, format=kind, metadata=metadata)
            path = directory / f"{name}.{kind}"
            partial = path.with_name(f".{path.name}.partial")
            try:
                partial.write_bytes(picture.getvalue())
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)  # there only if it couldn't be moved
            written.append(path)
    return written


def write_picture(figure: Figure, directory: Path, name: str) -> None:
    """Save a picture and say where, or why it can't be.

    Raises:
        UserError: the directory can't be written.
    """
    try:
        written = save_picture(figure, directory, name)
    except OSError as error:
        raise UserError(f"cannot write to {directory}: {error.strerror}") from error
    for path in written:
        print(f"wrote {path}")
