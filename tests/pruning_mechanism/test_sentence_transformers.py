"""A result is a model of sentence-transformers too, with the embeddings of its stage."""

import json
import os

import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import CLIPVisionModelWithProjection, SiglipVisionModel

from cascade import Stage
from pruning_mechanism import AlignedProjection, align, load, load_processor, reduce, save
from pruning_mechanism.modeling.modeling_composed_clip import (
    ComposedClipVisionConfig,
    ComposedClipVisionModel,
)
from tests.cascade.stages.test_stage_siglip import write_siglip
from tests.conftest import tiny_clip, tiny_processor
from tests.fresh import python
from tests.lanes import sweep
from tests.pruning_mechanism.conftest import tiny_model
from tests.pruning_mechanism.test_as_transformers import LABELS, PICTURES
from tests.pruning_mechanism.test_reduction import SOMETHING, chain, pruned

TEXTS = [*LABELS, " ".join(LABELS * 9)]  # the last is cut off


def vision():
    return CLIPVisionModelWithProjection(tiny_clip().config.vision_config).eval()


def student():
    """A timm network with its projection, alone."""
    torch.manual_seed(0)
    config = ComposedClipVisionConfig(
        architecture="test_resnet", image_size=16, hidden_size=96, projection_dim=8
    )
    return ComposedClipVisionModel(config).eval()


WHOLE = {
    **{name: lambda name=name: reduce(pruned(), SOMETHING[name]) for name in SOMETHING},
    "uneven heads": pruned,
    "aligned": lambda: align(pruned(), AlignedProjection(32, 5, 8)),
    "chain": chain,
    "half": lambda: chain().half(),
}
ALONE = {
    "vision": lambda: reduce(vision(), SOMETHING["merging"]),
    "vision, half": lambda: reduce(vision(), SOMETHING["exit"]).half(),
    "student": student,
    "student, half": lambda: student().half(),
    "siglip's vision": lambda: SiglipVisionModel(tiny_model("siglip").config.vision_config).eval(),
}
SMALLER = ("resolution", "patch size")


def check(directory, texts):
    """Images, and texts, of length 1 and equal to 1e-5."""
    stage = Stage.load(directory, without_texts=not texts)
    other = SentenceTransformer(str(directory), device="cpu")
    found = other.encode(PICTURES, convert_to_tensor=True)
    torch.testing.assert_close(found, stage.encode_images(PICTURES), atol=1e-5, rtol=1e-5)
    if texts:
        found = other.encode(TEXTS, convert_to_tensor=True)
        torch.testing.assert_close(found, stage.encode_texts(TEXTS), atol=1e-5, rtol=1e-5)
    else:
        with pytest.raises(ValueError, match="text"):
            other.encode(TEXTS)


@pytest.mark.parametrize("name", sweep(WHOLE, ["patch size", "resolutions", "half"]))
def test_images_and_texts_are_embedded_as_a_stage_does(name, tmp_path):
    processor = tiny_processor(8 if name in SMALLER else 16)
    save(WHOLE[name](), tmp_path / "result", processor)
    check(tmp_path / "result", texts=True)


@pytest.mark.parametrize("name", sweep(ALONE, ["vision, half", "student", "siglip's vision"]))
def test_images_are_by_a_vision_tower_alone_and_texts_are_refused(name, tmp_path):
    save(ALONE[name](), tmp_path / "result", tiny_processor().image_processor)
    check(tmp_path / "result", texts=False)


def test_a_dense_vision_tower_alone_is_refused(tmp_path):
    """No rule writes one, and transformers leaves its projection out: better no embedding."""
    save(vision(), tmp_path / "result", tiny_processor().image_processor)
    with pytest.raises(AttributeError, match="image_embeds"):
        SentenceTransformer(str(tmp_path / "result"), device="cpu").encode(PICTURES)


def test_those_of_a_siglip_are(tmp_path):
    """Its texts are padded to the context, as its tower sees the padding."""
    (tmp_path / "base").mkdir()
    base = write_siglip(tmp_path / "base")
    save(load(base), tmp_path / "result", load_processor(base))
    check(tmp_path / "result", texts=True)


READER = """
import json, sys
from PIL import Image
from sentence_transformers import SentenceTransformer
model = SentenceTransformer(sys.argv[1], device="cpu", trust_remote_code=True)
found = [model.encode(given).tolist() for given in (Image.open(sys.argv[2]), sys.argv[3])]
assert "pruning_mechanism" not in sys.modules
print(json.dumps(found))
"""


def test_where_the_project_is_not_importable_the_code_beside_the_weights_does_it(tmp_path):
    save(chain(), tmp_path / "chain", tiny_processor())
    PICTURES[0].save(tmp_path / "picture.png")
    environment = os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    line = ("-c", READER, "chain", "picture.png", TEXTS[0])
    run = python(*line, cwd=tmp_path, env=environment)
    image, text = json.loads(run.stdout.strip().splitlines()[-1])
    stage = Stage.load(tmp_path / "chain")
    assert image == pytest.approx(stage.encode_images(PICTURES[:1])[0].tolist(), abs=1e-5)
    assert text == pytest.approx(stage.encode_texts(TEXTS[:1])[0].tolist(), abs=1e-5)
