"""Matrix products in 8 bits, with a scale for each token and for each column of the result.

A row x of activations, or a row of the weight, is written as s·q, where q has 8 bits and s is the
row's largest magnitude over the largest that q can be. Scales are found anew for each token, so no
images are needed beforehand, and an embedding doesn't depend on the batch that its image comes in.
(Dynamic rounding by token and by channel: arXiv 2206.01861; float8 is e4m3 of arXiv 2209.05433.)
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

EightBits = Literal["float8", "int8"]
LEVELS = {"float8": torch.float8_e4m3fn, "int8": torch.int8}
LARGEST = {"float8": torch.finfo(torch.float8_e4m3fn).max, "int8": 127.0}
MULTIPLE = 16
"""Both widths of a product in 8 bits are multiples of it on a GPU."""
MORE_ROWS = 17
"""Rows that a product in int8 has at least on a GPU."""
_LEAST = 1e-12  # a row of zeros has a scale as well


def rounded(rows: Tensor, dtype: EightBits) -> tuple[Tensor, Tensor]:
    """Rows [m, k] in 8 bits [m, k] and their scales, float32 [m, 1]: rows ≈ scales · levels."""
    largest = LARGEST[dtype]
    exact = rows.float()
    scales = exact.abs().amax(-1, keepdim=True).clamp(min=_LEAST) / largest
    levels = (exact / scales).clamp(-largest, largest)
    return (levels.round() if dtype == "int8" else levels).to(LEVELS[dtype]), scales


class EightBitLinear(nn.Module):
    """A linear map whose product is computed in 8 bits; takes and gives bfloat16.

    Attributes:
        in_features: multiple of `MULTIPLE`.
        out_features: likewise.
    """

    levels: Tensor
    scales: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: EightBits) -> None:
        """Round a weight [out, in]; the bias [out] stays in bfloat16.

        Raises:
            ValueError: a width isn't a multiple of `MULTIPLE`.
        """
        super().__init__()
        self.out_features, self.in_features = weight.shape
        if self.out_features % MULTIPLE or self.in_features % MULTIPLE:
            raise ValueError(f"widths {tuple(weight.shape)} aren't multiples of {MULTIPLE}")
        self.dtype: EightBits = dtype
        levels, scales = rounded(weight.detach(), dtype)
        self.register_buffer("levels", levels)
        self.register_buffer("scales", scales)
        self.register_buffer("bias", None if bias is None else bias.detach().bfloat16())

    def forward(self, hidden: Tensor) -> Tensor:
        """The result [..., out] of hidden states [..., in], both bfloat16."""
        rows = hidden.flatten(0, -2)
        found = self._in_float8(rows) if self.dtype == "float8" else self._in_int8(rows)
        shaped: Tensor = found.unflatten(0, hidden.shape[:-1])
        return shaped

    def _in_float8(self, rows: Tensor) -> Tensor:
        levels, scales = rounded(rows, "float8")
        return torch._scaled_mm(
            levels,
            self.levels.t(),
            scale_a=scales,
            scale_b=self.scales.t(),
            bias=self.bias,
            out_dtype=torch.bfloat16,
            use_fast_accum=True,
        )

    def _in_int8(self, rows: Tensor) -> Tensor:
        levels, scales = rounded(rows, "int8")
        if (missing := MORE_ROWS - len(levels)) > 0:
            levels = pad(levels, (0, 0, 0, missing))
        sums = torch._int_mm(levels, self.levels.t())[: len(rows)]
        found = sums.float() * scales * self.scales.t()
        return (found if self.bias is None else found + self.bias).bfloat16()
