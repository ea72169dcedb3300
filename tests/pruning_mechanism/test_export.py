"""Exported and traced towers give every image its own embedding, whatever batch they were made on.

Each kind of result is exported once with a batch of any size, run by torch and by onnxruntime at
several sizes, and compared with the model itself. `EXPORTED` directories of real results, separated
by colons in the environment, are checked in the same way.
"""

import os
import warnings

import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from pruning_mechanism import Mask, Reduction, align, load, prune, reduce
from pruning_mechanism.modeling.aligned_projection import AlignedProjection
from pruning_mechanism.modeling.modeling_composed_clip import (
    ComposedClipVisionConfig,
    ComposedClipVisionModel,
)
from pruning_mechanism.tower import vision_config
from tests.conftest import tiny_clip
from tests.lanes import sweep
from tests.pruning_mechanism.conftest import (
    FAMILIES,
    random_mask,
    random_slim_mask,
    tiny_model,
)

BATCHES = (1, 2, 5, 32)
TWO_SIZES = {"resolutions": (8, 16), "resolution_shares": (0.5, 0.5)}


class ImageEncoder(nn.Module):
    """What people export: pixels [b, 3, height, width] in, embeddings [b, e] out."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        return self.model.get_image_features(pixel_values=pixels).pooler_output


def projection() -> AlignedProjection:
    torch.manual_seed(1)
    return AlignedProjection(32, 5, 8)


def reduced(model=None, **reduction):
    return reduce(model or tiny_clip(), Reduction(**reduction))


def one_layer():
    return tiny_clip(num_hidden_layers=1)


def pruned():
    """A layer without heads, another without neurons, the others narrower."""
    return prune(tiny_clip(), random_slim_mask(8))


def layer_without_anything() -> Mask:
    """A mask that leaves the second layer nothing but its biases."""
    mask = random_mask(3)
    heads, neurons = mask.heads.clone(), mask.neurons.clone()
    heads[1] = neurons[1] = False
    return Mask(heads, neurons)


def student(architecture: str, hidden_size: int) -> ComposedClipVisionModel:
    """What `compress.distill` makes: a timm network with a projection."""
    torch.manual_seed(0)
    return ComposedClipVisionModel(
        ComposedClipVisionConfig(
            architecture=architecture,
            arguments={"img_size": 32} if architecture == "test_vit" else {},
            image_size=32,
            hidden_size=hidden_size,
            projection_dim=8,
        )
    ).eval()


def all_together():
    """What `compress.joint` does to a tower, and ranking."""
    made = reduced(pruned(), layers=2, merged_per_layer=(3, 2, 0))
    return align(reduced(made, ranked_per_layer=(9, 0), ranker="learned"), projection())


MODELS = {
    "heads and neurons": lambda: prune(tiny_clip(), random_mask(3)),
    "head sizes": pruned,
    "flip grid": lambda: reduced(kept_patches=9, patch_rule="grid"),
    "flip random": lambda: reduced(kept_patches=9, patch_rule="random", patch_seed=1),
    "flip saliency": lambda: reduced(kept_patches=9, patch_rule="saliency"),
    "merge": lambda: reduced(merged_per_layer=(3, 2, 1)),
    "merge once": lambda: reduced(one_layer(), merged_per_layer=(3,)),
    "rank attention": lambda: reduced(ranked_per_layer=(10, 0, 5), ranker="attention"),
    "rank learned": lambda: reduced(ranked_per_layer=(10, 0, 5), ranker="learned"),
    "resolution": lambda: reduced(image_size=8),
    "resolutions": lambda: reduced(one_layer(), **TWO_SIZES, resolution_bounds=(BOUND,)),
    "patch size": lambda: reduced(patch_size=2),
    "early exit": lambda: reduced(layers=2),
    "align": lambda: align(tiny_clip(), projection()),
    "prune, merge, align": lambda: align(
        reduced(pruned(), merged_per_layer=(3, 2, 1)), projection()
    ),
    "flip, early exit": lambda: reduced(reduced(kept_patches=9, patch_rule="grid"), layers=2),
    "all together": all_together,
    "no heads, no neurons": lambda: prune(tiny_clip(), layer_without_anything()),
    "merge, early exit, align": lambda: align(
        reduced(reduced(merged_per_layer=(3, 2, 1)), layers=2), projection()
    ),
    "patch size, flip": lambda: reduced(
        reduced(patch_size=2), kept_patches=9, patch_rule="saliency"
    ),
    "resolution, rank, align": lambda: align(
        reduced(reduced(image_size=8), ranked_per_layer=(2, 0, 0), ranker="attention"), projection()
    ),
    "student, convolutions": lambda: student("test_resnet", 96),
    "student, transformer": lambda: student("test_vit", 64),
    **{
        f"{family}, pruned": lambda family=family: prune(tiny_model(family), random_slim_mask(8))
        for family in FAMILIES
    },
}
DIRECTORIES = [each for each in os.environ.get("EXPORTED", "").split(":") if each]
EXPORTS = sweep(MODELS, ("merge once",))
"""Those that are exported, which takes seconds each."""
ONE_IMAGE = sweep(
    ("merge", "merge once", "rank attention", "flip saliency", "resolutions"), ("resolutions",)
)
TRACED = sweep(
    MODELS,
    ("flip saliency", "merge once", "rank attention", "resolutions", "patch size", "all together"),
)
BOUND = 0.5
"""A loss that some of the images below stay under when they are made smaller, and some don't."""


def images(model: nn.Module, count: int) -> Tensor:
    """Smooth and noisy pictures in turn: they differ in contrast and in what they lose."""
    side = vision_config(model.config).image_size
    generator = torch.Generator().manual_seed(count)
    smooth = torch.linspace(-2, 2, side).expand(count, 3, side, side)
    smooth = smooth * torch.rand(count, 3, 1, 1, generator=generator)
    noise = torch.randn(count, 3, side, side, generator=generator)
    return smooth + noise * (torch.arange(count) % 2 + 0.1).view(-1, 1, 1, 1)


def made(name: str) -> ImageEncoder:
    model = MODELS[name]() if name in MODELS else load(name)
    return ImageEncoder(model).eval().requires_grad_(False)


def differences(encoder: ImageEncoder, found) -> dict[int, float]:
    """By batch size, the largest difference between embeddings."""
    batches = {count: images(encoder.model, count) for count in BATCHES}
    return {
        count: (torch.as_tensor(found(pixels)) - encoder(pixels)).abs().max().item()
        for count, pixels in batches.items()
    }


def in_onnxruntime(file):
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda pixels: session.run(None, {name: pixels.numpy()})[0]


def to_onnx(what, file, **how):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(what, f=file, dynamo=True, verbose=False, **how)
    return in_onnxruntime(file)


@pytest.mark.parametrize("name", [*EXPORTS, *DIRECTORIES])
def test_an_exported_tower_is_right_at_every_batch_size(name, tmp_path, record_property):
    encoder = made(name)
    example = images(encoder.model, 2)
    program = torch.export.export(encoder, (example,), dynamic_shapes=({0: Dim("b", max=4096)},))
    in_torch = differences(encoder, program.module())
    in_onnx = differences(encoder, to_onnx(program, tmp_path / "tower.onnx"))
    record_property("torch.export", in_torch)
    record_property("ONNX", in_onnx)
    print(f"{name}: torch.export {in_torch}, ONNX {in_onnx}")
    assert max(in_torch.values()) < 1e-5
    assert max(in_onnx.values()) < 1e-4


@pytest.mark.parametrize("name", ONE_IMAGE)
def test_an_example_of_one_image_does_for_onnx(name, tmp_path):
    """`torch.export` itself takes a batch of one for a fixed one, of any model."""
    encoder = made(name)
    shapes = {"pixels": {0: Dim.DYNAMIC}}
    found = to_onnx(
        encoder,
        tmp_path / "tower.onnx",
        args=(images(encoder.model, 1),),
        dynamic_shapes=shapes,
    )
    assert max(differences(encoder, found).values()) < 1e-4


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", [*TRACED, *DIRECTORIES])
def test_a_tower_traced_on_one_image_is_right_for_others(name):
    encoder = made(name)
    traced = torch.jit.trace(encoder, images(encoder.model, 1), check_trace=False)
    assert max(differences(encoder, traced).values()) < 1e-5


def test_the_pictures_here_take_different_sizes():
    (rule,) = made("resolutions").model.vision_model.rules
    assert set(rule.places(images(tiny_clip(), 5)).tolist()) == {0, 1}


def test_a_tower_of_several_sizes_that_runs_computes_each_image_at_its_own_only():
    """In a graph every image is computed at each size; running, only at its own."""
    encoder, seen = made("resolutions"), []
    root = encoder.model.vision_model
    root.embeddings.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape))
    encoder(images(encoder.model, 5))
    assert sorted((shape[0], shape[-1]) for shape in seen) == [(2, 16), (3, 8)]
