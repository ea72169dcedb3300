"""States as rows of bytes, which a store keeps without knowing what they are, and back.

Bit for bit: what was packed resumes as if it had stayed in memory. Each row says itself how it is
to be read.
"""

import numpy as np
import numpy.typing as npt
import torch

from cascade.searching.states import States

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # by their codes
_HEADER = np.dtype([("tokens", "<u4"), ("width", "<u4"), ("dtype", "u1"), ("sizes", "u1")])
_HEADER_BYTES = 16  # so that numbers behind it lie where a processor likes them


def packed(states: States) -> npt.NDArray[np.uint8]:
    """The states of n images: uint8 [n, 16 + `States.bytes_per_image`].

    Raises:
        ValueError: they are of a type that can't be packed.
    """
    count, tokens, width = states.hidden.shape
    if states.hidden.dtype not in _DTYPES:
        raise ValueError(f"states of {states.hidden.dtype} can't be packed")
    code = _DTYPES.index(states.hidden.dtype)
    said = np.array([(tokens, width, code, states.sizes is not None)], _HEADER)
    header = np.zeros((count, _HEADER_BYTES), np.uint8)
    header[:, : _HEADER.itemsize] = said.view(np.uint8)
    parts = [_bytes_of(part) for part in (states.hidden, states.sizes) if part is not None]
    return np.concatenate([header, *parts], axis=1)


def unpacked(rows: npt.NDArray[np.uint8]) -> States:
    """The states of n images from their rows, which are at least one and all of one kind.

    Raises:
        ValueError: these are no rows of states.
    """
    headers = np.ascontiguousarray(rows[:, : _HEADER.itemsize])
    tokens, width, code, has_sizes = headers[0].view(_HEADER)[0].tolist()
    if (headers != headers[0]).any() or code >= len(_DTYPES):
        raise ValueError("rows of states are damaged")
    values = tokens * width * _DTYPES[code].itemsize
    if rows.shape[1] != _HEADER_BYTES + values + 2 * tokens * has_sizes:
        raise ValueError("rows of states are damaged")
    hidden = _numbers_of(rows[:, _HEADER_BYTES : _HEADER_BYTES + values], _DTYPES[code])
    sizes = _numbers_of(rows[:, _HEADER_BYTES + values :], torch.int16) if has_sizes else None
    return States(hidden.reshape(-1, tokens, width), sizes)


def _numbers_of(columns: npt.NDArray[np.uint8], dtype: torch.dtype) -> torch.Tensor:
    """The numbers that bytes are, [n, …], in memory of their own."""
    return torch.from_numpy(np.array(columns, order="C")).view(dtype)


def _bytes_of(tensor: torch.Tensor) -> npt.NDArray[np.uint8]:
    """The numbers of n images [n, …] as bytes [n, b]."""
    flat = tensor.contiguous().reshape(len(tensor), -1).view(torch.uint8)
    found: npt.NDArray[np.uint8] = flat.numpy()
    return found
