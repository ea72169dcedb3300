"""A tower of four layers, and early exits of it, as stages."""

import pytest
import torch
from PIL import Image

from cascade import Stage
from pruning_mechanism import Reduction, reduce
from tests.conftest import tiny_clip, tiny_processor

LAYERS = 4


def exit_of(stage: Stage, layers: int = 2, **reduction) -> Stage:
    """An early exit of a stage's tower after so many layers, reduced besides."""
    model = reduce(stage.model, Reduction(**reduction)) if reduction else stage.model
    return Stage(reduce(model, Reduction(layers=layers)), tiny_processor(), batch_size=2)


@pytest.fixture
def full() -> Stage:
    return Stage(tiny_clip(num_hidden_layers=LAYERS), tiny_processor(), batch_size=3)


@pytest.fixture
def pictures() -> list[Image.Image]:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (5, 20, 24, 3), generator=generator, dtype=torch.uint8)
    return [Image.fromarray(each.numpy()) for each in noise]
