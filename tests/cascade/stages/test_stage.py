"""A stage embeds as its checkpoint does, and its names tell what is interchangeable."""

import pytest
import torch
from PIL import Image
from transformers import CLIPModel, CLIPProcessor, CLIPVisionModelWithProjection

from cascade import Stage, UnreadableImage
from cascade.stages.stage import NoTextTowerError
from pruning_mechanism import Mask, TowerError, load_processor, prune
from pruning_mechanism.attention import attention_of
from tests.conftest import tiny_clip, tiny_processor
from tests.fresh import python
from tests.pruning_mechanism.conftest import tiny_model

TEXTS = ["a red disc", "a big blue star on the left of a small green square", "disc"]


@pytest.fixture
def pictures():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (5, 20, 24, 3), generator=generator, dtype=torch.uint8)
    return [Image.fromarray(each.numpy()) for each in noise]


@pytest.fixture
def stage(clip_directory):
    return Stage.load(clip_directory, batch_size=2)


@pytest.fixture
def vision_only(clip_directory, tmp_path):
    directory = tmp_path / "vision"
    CLIPVisionModelWithProjection.from_pretrained(clip_directory).save_pretrained(directory)
    load_processor(clip_directory).image_processor.save_pretrained(directory)
    return directory


def test_embeddings_are_those_of_transformers_normalised(stage, clip_directory, pictures):
    model = CLIPModel.from_pretrained(clip_directory).eval()
    processor = CLIPProcessor.from_pretrained(clip_directory)
    inputs = processor(text=TEXTS, images=pictures, return_tensors="pt", padding=True)
    with torch.inference_mode():
        expected = model(**inputs)
    images, texts = stage.encode_images(pictures), stage.encode_texts(TEXTS)
    torch.testing.assert_close(images, expected.image_embeds, atol=1e-5, rtol=0)
    torch.testing.assert_close(texts, expected.text_embeds, atol=1e-5, rtol=0)
    torch.testing.assert_close(images.norm(dim=1), torch.ones(5))
    assert images.dtype == texts.dtype == torch.float32


def test_the_two_halves_of_encoding_images_make_the_whole(stage, pictures):
    pixels = stage.pixels(pictures)
    assert pixels.shape == (5, 3, 16, 16)
    torch.testing.assert_close(stage.encode_pixels(pixels), stage.encode_images(pictures))


def test_the_two_halves_of_encoding_texts_make_the_whole(stage):
    tokens = stage.tokens(TEXTS)
    assert len(tokens["input_ids"]) == len(TEXTS)
    torch.testing.assert_close(stage.encode_tokens(tokens), stage.encode_texts(TEXTS))


def test_no_images_and_no_texts_are_no_embeddings(stage):
    assert stage.encode_images([]).shape == stage.encode_texts([]).shape == (0, 8)


def test_a_text_longer_than_the_tower_is_cut_off(stage):
    assert stage.encode_texts(["red " * 100]).shape == (1, 8)


def test_an_unreadable_image_is_an_error_of_its_own(stage, pictures):
    with pytest.raises(UnreadableImage):
        stage.encode_images([pictures[0], b"no image"])


def test_names_stay_when_nothing_that_matters_changes(stage, clip_directory, tmp_path):
    before = stage.name, stage.text_name
    stage.encode_texts(TEXTS)
    again = Stage.load(clip_directory)
    again.encode_texts(["a disc"])
    assert (again.name, again.text_name) == before
    stage.model.save_pretrained(tmp_path / "copy")
    load_processor(clip_directory).save_pretrained(tmp_path / "copy")
    copy = Stage.load(tmp_path / "copy")
    assert (copy.name, copy.text_name) == before


def test_names_are_the_same_in_a_new_process(stage, clip_directory):
    script = "import sys; from cascade import Stage; s = Stage.load(sys.argv[1]); "
    script += "print(s.name, s.text_name)"
    asked = python("-c", script, clip_directory)
    assert asked.stdout.split() == [stage.name, stage.text_name]


def test_a_changed_vision_tower_changes_the_name_only(stage, clip_directory):
    changed = Stage.load(clip_directory)
    with torch.no_grad():
        changed.model.vision_model.encoder.layers[1].mlp.fc1.bias[3] += 1e-3
    assert changed.name != stage.name
    assert changed.text_name == stage.text_name


def test_a_changed_text_tower_changes_the_text_name_only(stage, clip_directory):
    changed = Stage.load(clip_directory)
    with torch.no_grad():
        changed.model.text_projection.weight[0, 0] += 1e-3
    assert changed.name == stage.name
    assert changed.text_name != stage.text_name


def test_pruning_one_tower_leaves_the_name_of_the_other(stage, clip_directory):
    processor = load_processor(clip_directory)
    dense = Mask.dense(stage.model.config)
    mask = Mask(dense.heads, dense.neurons.clone().fill_(False))
    smaller = Stage(prune(stage.model, mask), processor)
    assert smaller.name != stage.name
    assert smaller.text_name == stage.text_name
    texts = Mask.dense(stage.model.config, "text")
    texts.neurons[:, ::2] = False
    smaller = Stage(prune(stage.model, texts, "text"), processor)
    assert smaller.name == stage.name
    assert smaller.text_name != stage.text_name


def test_preprocessing_and_shape_are_part_of_the_name(stage, clip_directory):
    processor = load_processor(clip_directory)
    processor.image_processor.image_mean = [0.5, 0.5, 0.5]
    assert Stage(stage.model, processor).name != stage.name
    other_heads = CLIPModel.from_pretrained(clip_directory)
    other_heads.config.vision_config.num_attention_heads = 2
    assert Stage(other_heads, load_processor(clip_directory)).name != stage.name


def test_a_vision_only_checkpoint_borrows_a_text_tower(stage, vision_only, pictures):
    borrowing = Stage.load(vision_only, texts=stage)
    assert borrowing.text_name == stage.text_name
    assert torch.equal(borrowing.encode_texts(TEXTS), stage.encode_texts(TEXTS))
    torch.testing.assert_close(borrowing.encode_images(pictures), stage.encode_images(pictures))


def test_a_vision_only_checkpoint_without_texts_says_what_to_do(vision_only):
    with pytest.raises(TowerError, match="texts=STAGE"):
        Stage.load(vision_only)


def test_a_vision_only_checkpoint_may_be_taken_as_it_is(stage, vision_only, pictures):
    alone = Stage.load(vision_only, without_texts=True)
    torch.testing.assert_close(alone.encode_images(pictures), stage.encode_images(pictures))
    assert (alone.text_modules, len(stage.text_modules)) == ([], 2)
    for asked in (alone.encode_texts, alone.tokens):
        with pytest.raises(NoTextTowerError, match="texts=STAGE"):
            asked(TEXTS)
    with pytest.raises(NoTextTowerError):
        _ = alone.text_name


def test_a_whole_checkpoint_keeps_its_texts_where_they_may_be_missing(stage, clip_directory):
    whole = Stage.load(clip_directory, without_texts=True)
    torch.testing.assert_close(whole.encode_texts(TEXTS), stage.encode_texts(TEXTS))
    assert whole.text_name == stage.text_name


def test_a_lent_text_tower_must_have_the_same_dimension(stage, vision_only):
    stage.model.visual_projection = torch.nn.Linear(16, 4, bias=False)
    with pytest.raises(TowerError, match="4 dimensions"):
        Stage.load(vision_only, texts=stage)


def test_a_tower_that_sees_its_padding_gets_the_whole_context(pictures):
    """SigLIP reads the last token, so a text must not depend on those it is batched with."""
    model = tiny_model("siglip")
    processor = tiny_processor()
    stage = Stage(model, processor, batch_size=3)
    together = stage.encode_texts(TEXTS)
    alone = torch.cat([stage.encode_texts([text]) for text in TEXTS])
    torch.testing.assert_close(together, alone)
    tokens = processor.tokenizer(TEXTS, padding="max_length", max_length=16, return_tensors="pt")
    with torch.inference_mode():
        expected = model.get_text_features(input_ids=tokens["input_ids"]).pooler_output
        torch.testing.assert_close(together, torch.nn.functional.normalize(expected))
    assert stage.encode_images(pictures).shape == (5, stage.dimension) == (5, 16)


@pytest.mark.parametrize("family", ["altclip", "chinese_clip"])
def test_text_towers_that_cannot_be_pruned_encode_too(family):
    model, processor = tiny_model(family), tiny_processor()
    processor.tokenizer.model_max_length = 12  # a RoBERTa has fewer places than embeddings
    tokens = processor.tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        expected = model.get_text_features(**tokens).pooler_output
    stage = Stage(model, processor)
    found = stage.encode_texts(TEXTS)
    torch.testing.assert_close(found, torch.nn.functional.normalize(expected))
    assert stage.text_name == Stage(model, processor).text_name


def test_what_is_no_clip_is_refused(tmp_path):
    with pytest.raises(TowerError, match="neither a model directory"):
        Stage.load(tmp_path)


def test_a_stage_attends_by_what_is_fastest_and_says_so(clip_directory, pictures):
    stage = Stage.load(clip_directory, batch_size=2, attention="fastest")
    choice = stage.attention
    assert choice.name == min(choice.seconds, key=choice.seconds.get)
    assert choice.conditions.batch_size == 2
    assert attention_of(stage.model) == choice.name


def test_how_a_stage_attends_changes_neither_embeddings_nor_names(clip_directory, pictures):
    own = Stage.load(clip_directory)
    assert (own.attention.name, own.attention.seconds) == (attention_of(own.model), {})
    for name in ("eager", "sdpa"):
        other = Stage.load(clip_directory, attention=name)
        assert other.attention.name == attention_of(other.model) == name
        assert (other.name, other.text_name) == (own.name, own.text_name)
        torch.testing.assert_close(
            other.encode_images(pictures), own.encode_images(pictures), atol=1e-5, rtol=0
        )


def test_an_unknown_attention_is_refused_before_anything_is_loaded(tmp_path):
    with pytest.raises(TowerError, match="attention is one of"):
        Stage.load(tmp_path / "nothing", attention="quick")


# -- prepared ahead


def test_what_was_prepared_ahead_is_embedded_as_if_it_were_not(pictures):
    stage = Stage(tiny_clip(), tiny_processor())
    alone = [stage.prepare(picture) for picture in pictures]
    assert torch.equal(stage.pixels(alone), stage.pixels(pictures))
    assert torch.equal(stage.encode_images(alone), stage.encode_images(pictures))
    mixed = [alone[0], *pictures[1:3], *alone[3:]]
    assert torch.equal(stage.encode_images(mixed), stage.encode_images(pictures))


def test_a_stage_that_prepares_images_otherwise_opens_them_itself(pictures):
    stage = Stage(tiny_clip(), tiny_processor())
    other = Stage(tiny_clip(image_size=32), tiny_processor(32))
    ahead = [stage.prepare(picture, lambda picture=picture: picture) for picture in pictures]
    assert torch.equal(other.encode_images(ahead), other.encode_images(pictures))


def test_what_waits_between_threads_is_a_quarter_of_what_a_tower_takes(pictures):
    stage = Stage(tiny_clip(), tiny_processor())
    assert stage.fallback is None
    levels, pixels = stage.prepare(pictures[0]).levels, stage.pixels(pictures[:1])
    assert 4 * levels.nbytes == pixels.nbytes == 4 * 3 * 16 * 16


@pytest.mark.parametrize("threads", [1, 2])
def test_many_images_are_prepared_ahead_with_the_same_embeddings(pictures, threads):
    stage = Stage(tiny_clip(), tiny_processor(), batch_size=10)
    images = [pictures[place % 5] for place in range(47)]
    expected = torch.cat([stage.encode_pixels(stage.pixels([image])) for image in images])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        torch.testing.assert_close(stage.encode_images(images), expected, atol=1e-6, rtol=0)
        batches = [images[start : start + 10] for start in range(0, 47, 10)]
        found = torch.cat(list(stage.encode_batches(iter(batches))))
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
        with pytest.raises(UnreadableImage, match="8 bytes"):
            stage.encode_images([*images, b"no image"])
    finally:
        torch.set_num_threads(before)
