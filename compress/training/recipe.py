"""How a first stage is trained: what decides the result, and nothing about machines."""

from dataclasses import dataclass
from typing import Literal

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Recipe:
    """How a first stage is trained towards the full tower's embeddings.

    Attributes:
        steps: of the optimizer, at most.
        batch_size: images in a step, on all processes together.
        learning_rate: of AdamW at its peak, relative to the size of each tensor; it falls to zero
            along a cosine.
        warm_up: share of the steps in which the learning rate rises.
        weight_decay: of AdamW.
        affinity: weight of the loss that compares similarities within a batch.
        flips: whether each image is seen as it is and mirrored.
        held_out: images that are left out, to tell when to stop.
        looks: how many times they are looked at.
        patience: looks without a gain after which training stops.
        precision: of the products; weights and optimizer stay float32.
        seed: of the order of the images.
    """

    steps: int = 400
    batch_size: int = 64
    learning_rate: float = 0.05
    warm_up: float = 0.1
    weight_decay: float = 0.01
    affinity: float = 0.0
    flips: bool = True
    held_out: int = 512
    looks: int = 10
    patience: int = 10
    precision: Precision = "float32"
    seed: int = 0
