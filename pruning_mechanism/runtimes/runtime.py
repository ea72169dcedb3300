"""What every runtime is: pixels in, embeddings out."""

from typing import Literal, Protocol, get_args

from torch import Tensor

Dtype = Literal["float32", "float16", "bfloat16", "float8", "int8"]
"""What a vision tower's products are computed in; what goes in and comes out is float32.

In float8 (e4m3) and int8 some products are left in a wider type.
"""
DTYPES: tuple[Dtype, ...] = get_args(Dtype)


class Runtime(Protocol):
    """A vision tower, ready to run.

    Attributes:
        name: as `table` has it.
        dtype: what it computes in.
        content: what identifies its numbers where weights and `dtype` alone don't: the SHA-256 of
            a quantised graph, or of which products are rounded; None elsewhere.
    """

    name: str
    dtype: Dtype
    content: str | None

    def embed(self, pixels: Tensor) -> Tensor:
        """The embeddings [n, d], not normalised, of float32 pixels [n, 3, height, width]."""
