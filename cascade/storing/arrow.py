"""Rows and keys of images in Arrow columns: a Python object is made when one is asked for."""

from collections.abc import Iterator, Sequence
from typing import Any, cast, overload

from cascade.storing.rows import ImageRow

COLUMNS = ("key", "uri", "size", "modified", "digest", "reason", "metadata")
"""Those of an `ImageRow`, in order."""


class ArrowRows(Sequence[ImageRow]):
    """The rows of an Arrow table; each is made when it is asked for."""

    def __init__(self, table: Any) -> None:
        self._table = table

    def __len__(self) -> int:
        return cast(int, self._table.num_rows)

    @overload
    def __getitem__(self, place: int) -> ImageRow: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[ImageRow]: ...
    def __getitem__(self, place: int | slice) -> ImageRow | Sequence[ImageRow]:
        if isinstance(place, slice):
            return ArrowRows(_sliced(self._table, place))
        if not -len(self) <= place < len(self):
            raise IndexError(place)
        place %= len(self)
        return ImageRow(*(self._table[name][place].as_py() for name in COLUMNS))

    def __iter__(self) -> Iterator[ImageRow]:
        for batch in self._table.to_batches(4096):
            columns = [batch[name].to_pylist() for name in COLUMNS]
            yield from map(ImageRow, *columns)


class ArrowKeys(Sequence[str]):
    """The texts of an Arrow column; each is made when it is asked for."""

    def __init__(self, column: Any) -> None:
        self._column = column

    def __len__(self) -> int:
        return len(self._column)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[str]: ...
    def __getitem__(self, place: int | slice) -> str | Sequence[str]:
        if isinstance(place, slice):
            return ArrowKeys(_sliced(self._column, place))
        return cast(str, self._column[place].as_py())

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), 4096):
            yield from self._column.slice(start, 4096).to_pylist()


def _sliced(column: Any, places: slice) -> Any:
    """Rows next to each other of a column or table."""
    start, stop, step = places.indices(len(column))
    if step != 1:
        raise ValueError("rows that are next to each other are sliced")
    return column.slice(start, max(0, stop - start))
