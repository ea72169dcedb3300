import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from pruning_mechanism import Mask


def random_mask(seed: int, layers: int = 3, heads: int = 4, neurons: int = 24) -> Mask:
    generator = torch.Generator().manual_seed(seed)
    return Mask(
        torch.rand(layers, heads, generator=generator) < 0.6,
        torch.rand(layers, neurons, generator=generator) < 0.6,
    )


@pytest.fixture(scope="session")
def vit_b16() -> CLIPModel:
    """A CLIP with random weights and a ViT-B/16-shaped vision tower."""
    torch.manual_seed(0)
    config = CLIPConfig(
        vision_config={"patch_size": 16}, text_config={"num_hidden_layers": 1, "vocab_size": 100}
    )
    return CLIPModel(config).eval()
