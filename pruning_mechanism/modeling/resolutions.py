"""Several resolutions: each image is computed at the smallest size at which it loses little.

Part of every checkpoint. A graph that is exported or traced computes every image at all sizes and
takes the one that is its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.jit import is_tracing  # type: ignore[attr-defined]  # public, but not in its __all__

from .checks import check_cuttable, is_number, short
from .token_rule import TokenRule, TowerSizes
from .tokens import complexity, resized


@dataclass(frozen=True)
class Resolutions(TokenRule):
    """Reduce an image to the first of the `resolutions` at which it loses no more than a bound.

    `resolutions` are sides in pixels, ascending. `resolution_bounds` are the bounds of all but the
    last, `resolution_shares` the shares of images expected at each, which costs are means over.
    """

    resolutions: list[int] | None = None
    resolution_bounds: list[float] | None = None
    resolution_shares: list[float] | None = None

    def check(self, config: TowerSizes, beside: Sequence[TokenRule]) -> None:
        """Refuse sizes out of order, and bounds and shares that aren't theirs."""
        sizes, bounds, shares = self.resolutions, self.resolution_bounds, self.resolution_shares
        if sizes is None:
            raise ValueError("resolution_bounds and resolution_shares are of resolutions; none are")
        for size in sizes if isinstance(sizes, (list, tuple)) else ():
            check_cuttable(size, config.patch_size)
        if not isinstance(sizes, (list, tuple)) or not sizes or list(sizes) != sorted(set(sizes)):
            raise ValueError(f"resolutions are given in ascending order, found {short(sizes)}")
        if sizes[-1] > config.image_size:
            raise ValueError(f"a resolution of {sizes[-1]}: images have {config.image_size} pixels")
        for name, given in (("resolution_bounds", bounds), ("resolution_shares", shares)):
            listed = isinstance(given, (list, tuple)) and all(map(is_number, given))
            if given is not None and not listed:
                raise ValueError(f"{name} takes finite numbers, found {short(given)}")
        counts = len(bounds or ()), len(shares or ())
        if shares is None or counts[0] < len(sizes) - 1 or counts[1] != len(sizes):
            raise ValueError(
                f"{len(sizes)} resolutions have a bound each but the last, and a share each, found "
                f"{counts[0]} and {counts[1]}"
            )
        if min(shares) < 0 or abs(sum(shares) - 1) > 1e-3:
            raise ValueError(f"resolution_shares must make up 1, found {short(shares)}")

    def sides(self) -> tuple[tuple[int, float], ...]:
        """The resolutions with their shares."""
        return tuple(zip(self.resolutions or (), self.resolution_shares or (), strict=True))

    def places(self, pixels: Tensor) -> Tensor:
        """The place of each image's size among the resolutions, int64 [b]."""
        sizes, bounds = self.resolutions or (), self.resolution_bounds or ()
        last = len(sizes) - 1
        choice = torch.full(pixels.shape[:1], last, device=pixels.device)
        for place in reversed(range(last)):
            lost = complexity(pixels.float(), sizes[place])
            choice = torch.where(lost <= bounds[place], place, choice)
        return choice

    def at_own_sizes(self, pixels: Tensor, pooled: Callable[[Tensor], Tensor]) -> Tensor:
        """Images that take the same size are computed together."""
        choice = self.places(pixels)
        if torch.compiler.is_exporting() or is_tracing():
            return self._of_all_sizes(pixels, choice, pooled)
        sizes = self.resolutions or ()
        rows = [(choice == place).nonzero().flatten() for place in range(len(sizes))]
        found = torch.cat(
            [
                pooled(resized(pixels[own], size))
                for own, size in zip(rows, sizes, strict=True)
                if len(own)
            ]
        )
        return torch.empty_like(found).index_copy(0, torch.cat(rows), found)

    def _of_all_sizes(
        self, pixels: Tensor, choice: Tensor, pooled: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """The same in a graph, which can't know how many images take a size: all, then selected."""
        first, *others = (pooled(resized(pixels, size)) for size in self.resolutions or ())
        for place, found in enumerate(others, start=1):
            first = torch.where((choice == place)[:, None], found, first)
        return first
