"""Where a picture is written: NAME.png and NAME.svg, each whole or not at all.

The last step of every figure command; the same figure gives the same bytes.
"""

import io
from pathlib import Path

import matplotlib.style
from matplotlib.figure import Figure

from commands.screen import printable
from commands.writing.files import check_files, write_files
from figures.style import SETTINGS

_METADATA = {"png": {"Software": None}, "svg": {"Date": None}}


def refuse_existing(directory: Path, name: str, overwrite: bool) -> None:
    """Refuse, before any work, to replace a picture, or to write where none can be.

    Raises:
        UserError: a picture of that name is there and not to be overwritten, or can't be written.
    """
    check_files(directory, [f"{name}.{kind}" for kind in _METADATA], overwrite)


def fix_layout(figure: Figure) -> None:
    """Lay a figure out, without drawing it, and leave it so from now on.

    Without any engine left, saving draws once. With matplotlib's "none" it would draw twice: first
    to lay out what nothing moves any more.
    """
    if engine := figure.get_layout_engine():
        engine.execute(figure)
    figure.set_layout_engine(None)
    for axes in figure.axes:
        axes.apply_aspect()


def settle_layout(figure: Figure) -> None:
    """Lay a figure out once and for all, to a pixel or two.

    The solver's last bits differ from one run to the next, and the names in an svg with them: of
    the axes, and of the subfigures that they lie in.
    """
    fix_layout(figure)
    for part in figure.subfigs:
        part.bbox_relative.set_points(part.bbox_relative.get_points().round(3))
    for axes in figure.axes:
        left, bottom, width, height = (round(float(edge), 3) for edge in axes.get_position().bounds)
        axes.set_position((left, bottom, width, height))


def save_picture(figure: Figure, directory: Path, name: str, overwrite: bool = True) -> list[Path]:
    """Write `name`.png and `name`.svg into a directory, made if need be: both or neither.

    Raises:
        UserError: one is there already and not to be overwritten, or can't be written.
    """
    pictures = {}
    with matplotlib.style.context(SETTINGS, after_reset=True):
        for kind, metadata in _METADATA.items():
            picture = io.BytesIO()
            figure.savefig(picture, format=kind, metadata=metadata)
            pictures[f"{name}.{kind}"] = picture.getvalue()
    return write_files(directory, pictures, overwrite)


def write_picture(figure: Figure, directory: Path, name: str, overwrite: bool) -> None:
    """Save a picture and say where.

    Raises:
        UserError: as `save_picture`.
    """
    for path in save_picture(figure, directory, name, overwrite):
        print(f"wrote {printable(path)}")
