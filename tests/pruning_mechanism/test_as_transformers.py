"""A result answers what a dense model of the same transformers answers, whoever asks it."""

import json
import os

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPVisionModelWithProjection, pipeline

from pruning_mechanism import Reduction, image_embeddings, load, load_processor, reduce, save
from tests.conftest import WORDS, tiny_clip, tiny_processor
from tests.fresh import python
from tests.lanes import sweep
from tests.pruning_mechanism.conftest import FAMILIES, tiny_inputs, tiny_model
from tests.pruning_mechanism.test_reduction import PIXELS, SOMETHING, chain, pruned

NOTHING = {
    "exit": Reduction(layers=3),
    "merging": Reduction(merged_per_layer=(0, 0, 0)),
    "grid": Reduction(kept_patches=16, patch_rule="grid"),
}
WITH_CLASS_TOKEN = [name for name in FAMILIES if name != "siglip"]
ASKED = [
    {},
    {"return_dict": False},
    {"return_dict": True, "output_hidden_states": True},
    {"output_attentions": True},
    {"return_dict": False, "output_hidden_states": True, "output_attentions": True},
    {"interpolate_pos_encoding": False},
]
RESULTS = {
    "pruned": pruned,
    "chain": chain,
    "resolutions": lambda: reduce(pruned(), SOMETHING["resolutions"]),
}
RNG = np.random.default_rng(0)
PICTURES = [
    Image.fromarray(RNG.integers(0, 255, (20, 24, 3), dtype=np.uint8)).convert("RGB")
    for _ in range(3)
]


def assert_same(found, expected):
    """Equal to rounding, of the same types, and with the same entries."""
    assert type(found) is type(expected)
    if isinstance(expected, Tensor):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    elif isinstance(expected, dict | tuple | list):
        parts = [
            list(each.items()) if isinstance(each, dict) else each for each in (found, expected)
        ]
        assert len(parts[0]) == len(parts[1])
        for one, other in zip(*parts, strict=True):
            assert_same(one, other)
    else:
        assert found == expected


@pytest.mark.parametrize("attention", sweep(["eager", "sdpa"], ["eager"]))
@pytest.mark.parametrize("name", NOTHING)
@pytest.mark.parametrize("asked", ASKED, ids=str)
@torch.no_grad()
def test_a_tower_that_leaves_nothing_out_gives_what_the_dense_one_gives(name, asked, attention):
    dense = tiny_clip()
    models = dense, reduce(dense, NOTHING[name])
    for model in models:
        model.set_attn_implementation(attention)
    expected, found = (model.vision_model(PIXELS, **asked) for model in models)
    assert_same(found, expected)
    expected, found = (model.get_image_features(PIXELS, **asked) for model in models)
    assert_same(found, expected)


@pytest.mark.parametrize("family", WITH_CLASS_TOKEN)
@torch.no_grad()
def test_a_whole_model_gives_what_the_dense_one_of_its_family_gives(family):
    dense = tiny_model(family)
    models = dense, reduce(dense, NOTHING["merging"])
    inputs = {"pixel_values": tiny_inputs("vision"), **tiny_inputs("text"), "return_loss": True}
    for asked in ASKED[:3]:
        expected, found = (model(**inputs, **asked) for model in models)
        assert_same(found, expected)


@torch.no_grad()
def test_hidden_states_are_chosen_by_number_where_transformers_can():
    dense = tiny_clip()
    reduced = reduce(dense, NOTHING["exit"])
    for asked in (1, [0, -1], [7]):
        try:
            expected = dense.vision_model(PIXELS, output_hidden_states=asked).hidden_states
        except (TypeError, ValueError):
            pytest.skip("not in this version")
        if len(expected or ()) == 4 and None not in expected:
            pytest.skip("not in this version")
        found = reduced.vision_model(PIXELS, output_hidden_states=asked).hidden_states
        assert [each is None for each in found] == [each is None for each in expected]


@torch.no_grad()
def test_what_a_configuration_asks_for_is_given():
    reduced = reduce(tiny_clip(), SOMETHING["merging"])
    reduced.set_attn_implementation("eager")
    own = reduced.vision_model.config
    own.output_hidden_states, own.output_attentions = True, True
    output = reduced.vision_model(PIXELS)
    assert [state.shape[1] for state in output.hidden_states] == [17, 14, 12, 11]
    assert [weights.shape[-1] for weights in output.attentions] == [17, 14, 12]
    own.return_dict = False
    assert isinstance(reduced.vision_model(PIXELS), tuple)
    assert image_embeddings(reduced, PIXELS).shape == (3, 8)


def test_attentions_of_merged_tokens_count_each_as_often_as_its_size():
    """The rows add up to 1, and the embedding is the same whether they are asked for or not."""
    reduced = reduce(tiny_clip(), SOMETHING["merging"])
    reduced.set_attn_implementation("eager")
    with torch.no_grad():
        output = reduced.vision_model(PIXELS, output_attentions=True)
        assert torch.equal(output.pooler_output, reduced.vision_model(PIXELS).pooler_output)
    for weights in output.attentions:
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))


@pytest.mark.parametrize("asked", ["output_hidden_states", "output_attentions"])
def test_images_of_several_sizes_have_no_states_and_say_so(asked):
    reduced = RESULTS["resolutions"]()
    with pytest.raises(ValueError, match=r"\[8, 16\] pixels have different numbers of tokens"):
        reduced.get_image_features(PIXELS, **{asked: True})


def test_images_of_another_size_are_refused_unless_positions_are_interpolated():
    reduced, larger = RESULTS["resolutions"](), torch.nn.functional.pad(PIXELS, (0, 8, 0, 8))
    with pytest.raises(ValueError, match=r"16 x 16 pixels .* found \[24, 24\]"):
        reduced.get_image_features(larger)
    found = reduced.get_image_features(larger, interpolate_pos_encoding=True)
    assert found.pooler_output.shape == (3, 8)


@pytest.fixture(params=RESULTS)
def directory(request, tmp_path):
    save(RESULTS[request.param](), tmp_path / "result", tiny_processor())
    return tmp_path / "result"


LABELS = [" ".join(WORDS[1:3]), " ".join(WORDS[5:8])]


@torch.no_grad()
def expected_scores(directory, picture) -> dict[str, float]:
    model, processor = load(directory), load_processor(directory)
    inputs = processor(images=picture, text=LABELS, return_tensors="pt", padding=True)
    inputs.pop("token_type_ids", None)
    scores = model(**inputs).logits_per_image.softmax(-1)[0].tolist()
    return dict(zip(LABELS, scores, strict=True))


def test_images_are_classified_by_a_pipeline(directory):
    classify = pipeline("zero-shot-image-classification", model=str(directory))
    found = classify(PICTURES[0], candidate_labels=LABELS, hypothesis_template="{}")
    scores = {each["label"]: each["score"] for each in found}
    assert scores == pytest.approx(expected_scores(directory, PICTURES[0]), abs=1e-5)


CLASSIFY = """
import json, sys
from transformers import pipeline
classify = pipeline("zero-shot-image-classification", model=sys.argv[1], trust_remote_code=True)
found = classify(sys.argv[2], candidate_labels=json.loads(sys.argv[3]), hypothesis_template="{}")
assert "pruning_mechanism" not in sys.modules
print(json.dumps({each["label"]: each["score"] for each in found}))
"""


def test_a_pipeline_classifies_where_the_project_is_not_importable(tmp_path):
    save(chain(), tmp_path / "chain", tiny_processor())
    PICTURES[0].save(tmp_path / "picture.png")
    environment = os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    line = ("-c", CLASSIFY, "chain", "picture.png", json.dumps(LABELS))
    run = python(*line, cwd=tmp_path, env=environment)
    scores = json.loads(run.stdout.strip().splitlines()[-1])
    assert scores == pytest.approx(expected_scores(tmp_path / "chain", PICTURES[0]), abs=1e-5)


def test_a_whole_model_is_no_feature_extractor_dense_or_not(directory, clip_directory):
    """Its forward pass wants texts as well: transformers says so of dense ones."""
    messages = []
    for model in (clip_directory, directory):
        extract = pipeline("image-feature-extraction", model=str(model))
        with pytest.raises(ValueError, match="input_ids") as caught:
            extract(PICTURES[0])
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_features_of_a_vision_tower_are_extracted_by_a_pipeline(tmp_path):
    tower = CLIPVisionModelWithProjection(tiny_clip().config.vision_config).eval()
    made = reduce(tower, SOMETHING["merging"])
    save(made, tmp_path, tiny_processor().image_processor)
    extract = pipeline("image-feature-extraction", model=str(tmp_path))
    pixels = tiny_processor().image_processor(PICTURES[0], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        torch.testing.assert_close(
            torch.tensor(extract(PICTURES[0])), image_embeddings(made, pixels)
        )
