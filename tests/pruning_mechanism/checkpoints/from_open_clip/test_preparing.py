"""Texts and images are prepared as open_clip prepares them."""

from itertools import product

import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pruning_mechanism import TowerError
from pruning_mechanism.checkpoints.from_open_clip.naming import find
from pruning_mechanism.checkpoints.from_open_clip.preparing import _cleaning, processor_of
from tests.lanes import examples, sweep

TEXTS = [
    "a photo of a cat", "A  DOG's   life!!!", "it's 12,345.67 €", "don’t “quote” me",
    "naïve café — übergroß", "犬と猫が座っている。", "собака и кошка", "🐶🐱 emoji 👩‍👩‍👧", "",
    "!", "! ! !", "<end_of_text> inside", "tabs\tand\nlines", "&amp; &lt;tag&gt;", "ﬁne ﬂour",
    "word " * 100, "x" * 300, "3 4 5 " * 40, "a_b-c/d", "\u00a0no-break\u2009thin",
]  # fmt: skip


@pytest.fixture(scope="module")
def processor():
    return processor_of(find("open_clip:MobileCLIP2-S0:random"), 256)


def padded(processor, text: str) -> list[int]:
    ids = processor.tokenizer(
        text, truncation=True, max_length=processor.tokenizer.model_max_length
    )["input_ids"]
    return ids + [0] * (77 - len(ids))


@pytest.mark.parametrize("text", TEXTS)
def test_tokens_are_those_of_open_clip(text, processor):
    assert padded(processor, text) == open_clip.tokenize([text])[0].tolist()


@settings(max_examples=examples(40, 1000))
@given(
    st.text(
        st.characters(
            codec="utf-8",
            categories=("Lu", "Ll", "Nd", "Po", "Pd", "Zs"),
            max_codepoint=0x4FF,
            exclude_characters="&\u00a0\u0130\u0149\u01c4\u01c5\u01c6\u01c7\u01c8\u01c9\u01ca\u01cb"
            "\u01cc\u01f1\u01f2\u01f3\u0132\u0133",
        ),
        max_size=60,
    )
)
def test_tokens_of_plain_text_are_those_of_open_clip(processor, text):
    from ftfy import fix_text

    if fix_text(text) == text:  # what isn't mended
        assert padded(processor, text) == open_clip.tokenize([text])[0].tolist()


@pytest.mark.parametrize("kind", ["lower", "whitespace", "canonicalize"])
@pytest.mark.parametrize("text", TEXTS)
def test_texts_are_cleaned_as_open_clip_cleans_them(kind, text):
    expected = open_clip.tokenizer.get_clean_fn(kind)(text)
    assert _cleaning(kind).normalize_str(text) == expected


@pytest.mark.parametrize(
    ("mode", "interpolation", "size"),
    sweep(
        product(
            ["shortest", "squash"], ["bicubic", "bilinear"], [(640, 427), (301, 500), (64, 64)]
        ),
        [
            ("shortest", "bicubic", (640, 427)),
            ("squash", "bilinear", (301, 500)),
            ("shortest", "bilinear", (64, 64)),
        ],
    ),
)
def test_pixels_are_those_of_open_clip(mode, interpolation, size):
    wanted = find("open_clip:MobileCLIP2-S0:random")
    changed = {**wanted.preprocessing, "resize_mode": mode, "interpolation": interpolation}
    wanted = type(wanted)(wanted.spec, wanted.name, wanted.model, changed, None)
    random = torch.Generator().manual_seed(0)
    noise = torch.rand((1, 3, 9, 7), generator=random)
    smooth = torch.nn.functional.interpolate(noise, size, mode="bicubic").clamp(0, 1)[0]
    picture = Image.fromarray((255 * smooth).byte().permute(1, 2, 0).numpy())
    prepare = open_clip.image_transform(
        64, False, changed["mean"], changed["std"], mode, interpolation
    )
    images = processor_of(wanted, 64).image_processor
    found = images(images=[picture], return_tensors="pt")["pixel_values"][0]
    expected = prepare(picture)
    if mode == "shortest" and size == (640, 427):  # 95 x 64: of the odd margin, half a pixel each
        found, expected = found[:, 1:], expected[:, :-1]
    # Pillow rounds after each of its two passes, torchvision too, but not in the same way
    torch.testing.assert_close(found, expected, atol=2.1 / 255, rtol=0)


def test_resizing_of_another_kind_is_refused():
    wanted = find("open_clip:MobileCLIP2-S0:random")
    for name, value in (("resize_mode", "longest"), ("interpolation", "random")):
        changed = {**wanted.preprocessing, name: value}
        with pytest.raises(TowerError, match=f"resized by .*'{value}'"):
            processor_of(type(wanted)("x", "x", wanted.model, changed, None), 64)
