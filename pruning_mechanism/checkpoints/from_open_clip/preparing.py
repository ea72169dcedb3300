"""How open_clip prepares images and texts, as a processor of transformers'.

Images: transformers resizes by torchvision on tensors, open_clip by Pillow; docs/support.md says
how far they are apart. Texts: the tokenizer has open_clip's vocabulary, and cleans texts as
open_clip does, except that text which was decoded wrongly isn't mended.
"""

import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoTokenizer,
    CLIPImageProcessor,
    CLIPProcessor,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from pruning_mechanism.checkpoints.from_open_clip.naming import Wanted, open_clip
from pruning_mechanism.checkpoints.from_open_clip.whole import context_length
from pruning_mechanism.checkpoints.record import first_line
from pruning_mechanism.families import TowerError
from pruning_mechanism.protocols import Processor

RESAMPLING = {"bicubic": 3, "bilinear": 2}
"""Pillow's numbers of them."""
QUOTES = {"[‘’‚‛ʼ]": "'", "[“”„‟]": '"'}
ENTITIES = {"&lt;": "<", "&gt;": ">", "&quot;": '"', "&#39;": "'", "&#x27;": "'", "&amp;": "&"}
LIGATURES = {"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "ft", "ﬆ": "st"}
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
"""What a word is to open_clip's tokenizer."""


def own_tokenizer(wanted: Wanted) -> bool:
    """Whether texts are read by open_clip's own tokenizer."""
    return not wanted.text.get("hf_tokenizer_name")


def processor_of(wanted: Wanted, side: int) -> Processor:
    """What prepares the images, `side` pixels wide and high, and the texts of a model.

    Raises:
        TowerError: its tokenizer can't be had, or images are resized in another way.
    """
    tokenizer = _own(wanted) if own_tokenizer(wanted) else _of_transformers(wanted)
    tokenizer.model_max_length = context_length(wanted)
    made: Processor = CLIPProcessor(_images(wanted, side), tokenizer)
    return made


def _images(wanted: Wanted, side: int) -> CLIPImageProcessor:
    asked = wanted.preprocessing
    mode, resampling = asked["resize_mode"], RESAMPLING.get(asked["interpolation"])
    if mode not in ("shortest", "squash") or resampling is None:
        raise TowerError(
            f"{wanted.spec}: its images are resized by {mode!r}, {asked['interpolation']!r}; "
            "shortest and squash, bicubic and bilinear are known"
        )
    square = {"height": side, "width": side}
    return CLIPImageProcessor(
        size={"shortest_edge": side} if mode == "shortest" else square,
        crop_size=square,
        do_center_crop=mode == "shortest",
        resample=resampling,
        image_mean=list(asked["mean"]),
        image_std=list(asked["std"]),
    )


def _own(wanted: Wanted) -> PreTrainedTokenizerBase:
    """open_clip's own tokenizer: the byte pairs of CLIP."""
    asked = dict(wanted.text.get("tokenizer_kwargs") or {})
    clean = asked.pop("clean", "lower")
    if asked:
        raise TowerError(f"{wanted.spec}: a tokenizer with {', '.join(asked)} isn't known")
    known = open_clip().SimpleTokenizer()
    start, end = (known.decoder[token] for token in (known.sot_token_id, known.eot_token_id))
    merges = [pair for pair in known.bpe_ranks if len(pair) == 2]
    tokenizer = Tokenizer(
        models.BPE(vocab=known.encoder, merges=merges, unk_token=end, end_of_word_suffix="</w>")
    )
    tokenizer.normalizer = _cleaning(clean)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}",
        special_tokens=[(start, known.sot_token_id), (end, known.eot_token_id)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=start, eos_token=end, unk_token=end, pad_token=end
    )


def _of_transformers(wanted: Wanted) -> PreTrainedTokenizerBase:
    """The tokenizer on the hub, or in the model's directory, that its configuration names."""
    source: str | Path = wanted.directory or wanted.text["hf_tokenizer_name"]
    asked: dict[str, Any] = dict(wanted.text.get("tokenizer_kwargs") or {})
    clean, strip = asked.pop("clean", "whitespace"), asked.pop("strip_sep_token", False)
    if wanted.text.get("tokenizer_mode"):
        raise TowerError(f"{wanted.spec}: tokenizer_mode isn't known")
    try:
        found = AutoTokenizer.from_pretrained(source, trust_remote_code=False, **asked)
        backend = found.backend_tokenizer
    except Exception as error:  # each tokenizer has its own ways to fail
        raise TowerError(
            f"{wanted.spec}: its tokenizer ({source}) can't be had: {first_line(error)}"
        ) from error
    before = [] if backend.normalizer is None else [backend.normalizer]
    backend.normalizer = normalizers.Sequence([_cleaning(clean), *before])
    if strip:
        _end_in_padding(backend, found)
    named = {
        name: str(token)
        for name, token in found.special_tokens_map.items()
        if isinstance(token, str)
    }
    return PreTrainedTokenizerFast(tokenizer_object=backend, **named)


def _end_in_padding(backend: Tokenizer, found: PreTrainedTokenizerBase) -> None:
    """End texts in token 0 in place of the separator."""
    end = found.convert_ids_to_tokens(0)
    backend.post_processor = processors.TemplateProcessing(
        single=f"{found.cls_token} $A {end}",
        special_tokens=[(found.cls_token, found.cls_token_id), (end, 0)],
    )


def _cleaning(kind: str) -> normalizers.Normalizer:
    """What open_clip does to a text first."""
    mended: Mapping[str, str] = ENTITIES | LIGATURES
    steps: list[normalizers.Normalizer] = [
        normalizers.Replace(old, new) for old, new in mended.items()
    ]
    steps += [normalizers.Replace(Regex(old), new) for old, new in QUOTES.items()]
    steps.append(normalizers.NFC())
    if kind == "canonicalize":
        marks = "".join(f"\\x{ord(mark):02x}" for mark in string.punctuation if mark != "_")
        steps += [normalizers.Replace("_", " "), normalizers.Replace(Regex(f"[{marks}]"), "")]
    if kind in ("canonicalize", "lower"):
        steps.append(normalizers.Lowercase())
    return normalizers.Sequence(
        [*steps, normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    )
