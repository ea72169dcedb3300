"""How a first stage is trained: what decides the result, and nothing about machines."""

from dataclasses import dataclass
from typing import Literal

Precision = Literal["float32", "bfloat16"]
Part = Literal["all", "head"]


@dataclass(frozen=True)
class Recipe:
    """How a first stage is trained towards the embeddings of a teacher.

    Attributes:
        steps: of the optimizer, at most.
        batch_size: images in a step, on all processes together.
        learning_rate: of AdamW at its peak, relative to the size of each tensor; it falls to zero
            along a cosine.
        warm_up: share of the steps in which the learning rate rises.
        weight_decay: of AdamW.
        part: what is trained, all of the tower or the projection at its head alone.
        cosine: weight of the distance of each image to its own embedding by the teacher.
        affinity: weight of the loss that compares similarities within a batch.
        contrastive: weight of the loss that tells an image's caption from the others' in a batch.
        dropout: share of the features in front of the projection that a step leaves out.
        views: how many views of each image are seen: as it is, mirrored, then crops.
        flips: whether views may be mirrored.
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
    part: Part = "all"
    cosine: float = 1.0
    affinity: float = 0.0
    contrastive: float = 0.0
    dropout: float = 0.0
    views: int = 2
    flips: bool = True
    held_out: int = 512
    looks: int = 10
    patience: int = 10
    precision: Precision = "float32"
    seed: int = 0
