"""Every name of open_clip's has a form here, and the towers of MobileCLIP their published sizes."""

from functools import cache

import open_clip
import pytest
import torch

from pruning_mechanism import TowerError
from pruning_mechanism.checkpoints.from_open_clip.converting import built, described
from pruning_mechanism.checkpoints.from_open_clip.naming import find
from tests.lanes import sweep

HYBRIDS = "MobileCLIP2-S0", "MobileCLIP-S1", "MobileCLIP-S2", "MobileCLIP2-S3", "MobileCLIP2-S4"
FEW = {
    "MobileCLIP2-S0": "ComposedClipModel",
    "RN50": "ComposedClipModel",
    "ViT-B-16-SigLIP2": "SiglipModel",
    "ViT-B-32": "CLIPModel",
    "ViT-H-14-worldwide": "MetaClip2Model",
    "PE-Core-T-16-384": "ComposedClipModel",
}
# image tower in millions: table 9 of arXiv 2311.17049, table 1 of arXiv 2508.20691
PUBLISHED = {
    "MobileCLIP2-S0": 11.4,
    "MobileCLIP-S1": 21.5,
    "MobileCLIP-S2": 35.7,
    "MobileCLIP2-S2": 35.7,
    "MobileCLIP-B": 86.3,
    "MobileCLIP2-B": 86.3,
    "MobileCLIP2-S3": 125.1,
    "MobileCLIP2-S4": 321.6,
}


@cache
def form(name):
    """What becomes of a model, and the image tower's parameters before that, on the meta device."""
    wanted = find(f"open_clip:{name}:random")
    with torch.device("meta"):
        theirs = built(wanted)
        before = sum(parameter.numel() for parameter in theirs.visual.parameters())
        return described(theirs, wanted), before


@pytest.mark.parametrize(
    "name", sweep(open_clip.list_models(), [*list(FEW)[:3], "roberta-ViT-B-32"])
)
def test_a_name_has_a_form_or_is_refused_in_one_line(name, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    if "hf_model_name" in open_clip.get_model_config(name)["text_cfg"]:  # its text tower is there
        with pytest.raises(TowerError, match=r"\Aopen_clip:.*: open_clip can't make it: .*\Z"):
            form(name)
        return
    made, _ = form(name)
    assert made.kind.__name__ == FEW.get(name, made.kind.__name__)
    with torch.device("meta"):
        empty = made.kind(made.config).state_dict()
    assert {key: value.shape for key, value in empty.items() if "position_ids" not in key} == {
        key: value.shape for key, value in made.weights.items()
    }


@pytest.mark.parametrize("name", sweep(PUBLISHED, ["MobileCLIP2-S0", "MobileCLIP-B"]))
def test_image_towers_have_the_published_sizes(name):
    made, before = form(name)
    own = ("vision_model.", "visual_projection.")
    running = ("running_mean", "running_var", "num_batches_tracked")
    tensors = {key: value for key, value in made.weights.items() if not key.endswith(running)}
    found = sum(value.numel() for key, value in tensors.items() if key.startswith(own)) / 1e6
    assert found == pytest.approx(PUBLISHED[name], abs=0.1)
    assert found <= before / 1e6
    assert made.config.vision_config.reparameterized == ("-S" in name)
