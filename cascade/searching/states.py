"""The tokens that leave a stage's last layer, kept so that a later stage can go on from them.

Between an early exit and the deeper tower that resumes from it (`cascade.resume`). A cascade
keeps the states of images beside the first stage's embeddings, in memory and on the CPU, as many
as its limit allows.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from cascade.stages.images import ImageSource
from cascade.stages.stage import Encoder
from pruning_mechanism import TowerError
from pruning_mechanism.modeling.tokens import match, merge, mergeable

STATE_LIMIT = 2 << 30
"""Bytes that states may take by default: those of 7,000 images of ViT-B/16 at 224 pixels."""


@dataclass(frozen=True)
class States:
    """The tokens of n images after some layer, on the CPU.

    `hidden` is [n, tokens, d], in half precision unless more was asked for. `sizes` int16
    [n, tokens] says how many patches each token stands for; None: one each.
    """

    hidden: Tensor
    sizes: Tensor | None = None

    def __post_init__(self) -> None:
        """Refuse sizes that aren't those of the tokens."""
        if self.sizes is not None and self.sizes.shape != self.hidden.shape[:2]:
            raise ValueError(
                f"tokens {list(self.hidden.shape[:2])} came with sizes {list(self.sizes.shape)}"
            )

    def __len__(self) -> int:
        """Number of images."""
        return len(self.hidden)

    def __getitem__(self, rows: slice) -> "States":
        """The states of some of the images (a view)."""
        return States(self.hidden[rows], None if self.sizes is None else self.sizes[rows])

    @property
    def bytes_per_image(self) -> int:
        """What the tokens of one image take in memory, with their sizes."""
        tensors = [tensor for tensor in (self.hidden, self.sizes) if tensor is not None]
        return sum(tensor.shape[1:].numel() * tensor.element_size() for tensor in tensors)

    def apart(self) -> list["States"]:
        """The states of each image alone, each in memory of its own."""
        rows = [self[place : place + 1] for place in range(len(self))]
        return [
            States(row.hidden.clone(), None if row.sizes is None else row.sizes.clone())
            for row in rows
        ]

    @classmethod
    def joined(cls, parts: Sequence["States"]) -> "States":
        """The states of the images of all parts, at least one; either all have sizes or none."""
        sizes = [part.sizes for part in parts if part.sizes is not None]
        hidden = torch.cat([part.hidden for part in parts])
        return cls(hidden, torch.cat(sizes) if sizes else None)


def states_of(
    hidden: Tensor, sizes: Tensor | None, merged: int = 0, dtype: torch.dtype = torch.float16
) -> States:
    """Make states of the tokens that leave a layer.

    Merging is bipartite soft matching (ToMe, arXiv 2210.09461) by the cosine of the tokens
    themselves, in as many rounds as it takes, in float32. The class token stays as it is.

    Args:
        hidden: tokens [b, n, d], the class token first.
        sizes: how many patches each stands for, [b, n]; None: one each.
        merged: how many tokens fewer are kept, at most n - 2.
        dtype: the type that they are kept in.

    Raises:
        ValueError: `merged` is out of range.
        TowerError: a token is not finite in `dtype`.
    """
    if not 0 <= merged <= max(0, hidden.shape[1] - 2):
        raise ValueError(f"{merged} of {hidden.shape[1] - 1} tokens can't be merged: one must stay")
    if merged:
        sizes = hidden.new_ones(hidden.shape[:2]) if sizes is None else sizes
        hidden, sizes = _merged(hidden.float(), sizes.float(), merged)
    hidden = hidden.to(dtype)
    if not hidden.isfinite().all():
        raise TowerError(
            f"hidden states are not finite in {str(dtype)[6:]}: keep them in torch.bfloat16, whose "
            "range is wider, or look for NaN in the tower's weights"
        )
    return States(hidden.cpu(), None if sizes is None else sizes.round().to(torch.int16).cpu())


def _merged(hidden: Tensor, sizes: Tensor, fewer: int) -> tuple[Tensor, Tensor]:
    """So many tokens fewer, and their sizes, in as many rounds as it takes."""
    while fewer:
        now = min(fewer, mergeable(hidden.shape[1]))
        hidden, sizes = merge(hidden, sizes, match(hidden, now))
        fewer -= now
    return hidden, sizes


class StateStore:
    """The states of images by position in the collection, until they are forgotten or dropped.

    They never take more than `limit` bytes: the oldest are dropped for new ones, but only those of
    images that can be opened again. Any thread may use it.

    Attributes:
        limit: bytes that all states held may take.
        dropped: number of states dropped, or never held, because of the limit.
        elsewhere: finds states of positions that are kept in another place, and not held here.
    """

    def __init__(self, limit: int = STATE_LIMIT) -> None:
        self.limit = limit
        self.dropped = 0
        self.elsewhere: Callable[[list[int]], dict[int, States]] | None = None
        self._states: dict[int, States] = {}
        self._needed: set[int] = set()
        self._largest = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Number of images whose states are held."""
        return len(self._states)

    @property
    def nbytes(self) -> int:
        """What all states held take in memory."""
        return sum(states.bytes_per_image for states in list(self._states.values()))

    def add(self, position: int, states: States, needed: bool = False) -> bool:
        """Keep the states of the one image at a position, if there is room or can be made.

        Args:
            position: of the image.
            states: of one image.
            needed: never drop them for others, because the image can't be opened again.

        Returns:
            Whether they are held now.
        """
        with self._lock:
            self._largest = max(self._largest, states.bytes_per_image)
            self._states.pop(position, None)
            self._needed.discard(position)
            # the number held is what counts: no sum to keep in step with it
            while (len(self._states) + 1) * self._largest > self.limit:
                oldest = next((held for held in self._states if held not in self._needed), None)
                self.dropped += 1
                if oldest is None:
                    return False
                del self._states[oldest]
            if needed:
                self._needed.add(position)
            self._states[position] = states
            return True

    def at(self, positions: Sequence[int]) -> States:
        """The states of the images at these positions, all of which are held."""
        return States.joined([self._states[position] for position in positions])

    def found(self, positions: Sequence[int]) -> dict[int, States]:
        """The states of those of these positions that have any, here or elsewhere."""
        with self._lock:
            held = {
                position: self._states[position]
                for position in positions
                if position in self._states
            }
        if self.elsewhere is not None and len(held) < len(positions):
            held |= self.elsewhere([position for position in positions if position not in held])
        return held

    def forget(self, positions: Iterable[int]) -> None:
        """Free the memory of images that won't be asked for again."""
        with self._lock:
            for position in positions:
                self._states.pop(position, None)
                self._needed.discard(position)

    def __getstate__(self) -> dict[str, Any]:
        """Without the lock, and without what is elsewhere."""
        with self._lock:
            state = self.__dict__ | {"elsewhere": None}
            state |= {"_states": self._states.copy(), "_needed": set(self._needed)}
        del state["_lock"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())


class Resuming(Encoder, Protocol):
    """What a cascade asks of a stage that goes on from the states of an earlier one."""

    @property
    def resumes(self) -> str:
        """The `name` of that earlier stage."""

    def encode_first(self, images: Sequence[ImageSource]) -> tuple[Tensor, States]:
        """What the earlier stage's `encode_images` gives, and the states to go on from."""

    def encode_states(self, states: States) -> Tensor:
        """L2-normalised float32 [n, d] on the CPU."""


def resumed_from(stages: Sequence[Encoder]) -> list[int | None]:
    """For each stage of a cascade the place of the one that it resumes from; None: it opens images.

    Raises:
        ValueError: a stage resumes from one that isn't before it, that resumes itself, or that
            another resumes from.
    """
    found: list[int | None] = []
    for place, stage in enumerate(stages):
        resumes = getattr(stage, "resumes", None)  # isinstance would ask for every name as well
        if resumes is None:
            found.append(None)
            continue
        earlier = [at for at in range(place) if found[at] is None]
        first = next((at for at in earlier if stages[at].name == resumes), None)
        if first is None:
            raise ValueError(
                f"stage {place} resumes from a stage that isn't before it: the stage that it was "
                "made to resume from must come earlier in the cascade"
            )
        if first in found:
            raise ValueError(
                f"stages {found.index(first)} and {place} both resume from stage {first}: only "
                "one can"
            )
        found.append(first)
    return found
