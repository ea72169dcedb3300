"""The checkpoint's shape and its processor: they load and read as any CLIP of Hugging Face does."""

import torch
from transformers import AutoProcessor, CLIPModel, CLIPProcessor, CLIPVisionModelWithProjection

from demo.network import EOS_ID, build_model, build_processor

TEXTS = ["a small red star at the top left, on sand", "two blue rings"] * 2


def test_what_is_saved_loads_with_from_pretrained(tmp_path):
    torch.manual_seed(0)
    processor = build_processor(TEXTS)
    model = build_model(len(processor.tokenizer), "sdpa").eval()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    inputs = processor(
        text=TEXTS, images=torch.zeros(1, 3, 99, 150), return_tensors="pt", padding=True
    )
    again = CLIPModel.from_pretrained(tmp_path).eval()
    vision = CLIPVisionModelWithProjection.from_pretrained(tmp_path).eval()
    with torch.inference_mode():
        expected, found = model(**inputs), again(**inputs)
        alone = vision(pixel_values=inputs["pixel_values"]).image_embeds
    assert torch.allclose(expected.logits_per_image, found.logits_per_image, atol=1e-5)
    assert torch.allclose(
        torch.nn.functional.normalize(alone, dim=-1), found.image_embeds, atol=1e-5
    )
    for loader in (CLIPProcessor, AutoProcessor):
        tokens = loader.from_pretrained(tmp_path)(text=TEXTS, padding=True)
        assert tokens["input_ids"] == inputs["input_ids"].tolist()


def test_the_vision_tower_has_the_heads_and_tokens_that_commands_count_on():
    vision = build_model(600, "sdpa").config.vision_config
    assert (vision.num_hidden_layers, vision.num_attention_heads) == (12, 12)
    assert (vision.image_size // vision.patch_size) ** 2 + 1 == 65


def test_the_same_texts_always_give_the_same_vocabulary():
    """Else a training that is taken up again would go on with other words."""
    one, other = build_processor(TEXTS), build_processor(TEXTS)
    assert one.tokenizer.get_vocab() == other.tokenizer.get_vocab()


def test_a_caption_reads_back_as_it_was_and_ends_in_one_end_token():
    tokenizer = build_processor(TEXTS).tokenizer
    short, long = tokenizer([TEXTS[1], TEXTS[0]], padding=True)["input_ids"]
    assert tokenizer.decode(short, skip_special_tokens=True) == TEXTS[1]
    assert long.count(EOS_ID) == 1
    assert len(short) == len(long)


def test_words_never_seen_are_spelt_not_lost():
    tokenizer = build_processor(TEXTS).tokenizer
    for text in ("zebra", "größe", "日本"):
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text
