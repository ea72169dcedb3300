"""The shape of the demo checkpoint: a small CLIP of 12 vision layers × 12 heads, and its processor.

Used by demo.train before training, to build it, and during training, to embed with it.
"""

import json
from collections.abc import Iterable

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch.nn.functional import normalize
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

IMAGE_SIDE = 128  # pixels
EMBEDDING_SIZE = 256
VISION = {
    "hidden_size": 192,
    "intermediate_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": IMAGE_SIDE,
    "patch_size": 16,
    "projection_dim": EMBEDDING_SIZE,
}
BOS, EOS = "<|startoftext|>", "<|endoftext|>"
BOS_ID, EOS_ID = 0, 1
TEXT = {
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": BOS_ID,
    "eos_token_id": EOS_ID,
    "pad_token_id": EOS_ID,  # CLIP reads a caption at its first end token
    "projection_dim": EMBEDDING_SIZE,
}


def build_model(vocabulary: int, attention: str) -> CLIPModel:
    """A freshly initialised CLIP with this many tokens; the caller has seeded torch.

    attention is transformers' name of an implementation, sdpa or eager.
    """
    config = CLIPConfig(
        vision_config=VISION,
        text_config=TEXT | {"vocab_size": vocabulary},
        projection_dim=EMBEDDING_SIZE,
        attn_implementation=attention,  # type: ignore[call-arg]  # which the base class takes
    )
    return CLIPModel(config)


def build_processor(texts: Iterable[str], vocabulary: int = 4096) -> CLIPProcessor:
    """CLIP's usual image preparation, and at most `vocabulary` byte pairs learnt from `texts`."""
    clip = CLIPTokenizer().backend_tokenizer  # for its normaliser and its word splitting
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=EOS))
    learner.normalizer, learner.pre_tokenizer = clip.normalizer, clip.pre_tokenizer
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    last_letters = [f"{letter}</w>" for letter in letters]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        # Named here, last letters have fixed numbers; else each training would shuffle them.
        special_tokens=[BOS, EOS, *last_letters],
        initial_alphabet=letters,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    learnt = json.loads(learner.to_str())["model"]
    tokenizer = CLIPTokenizer(
        vocab=learnt["vocab"],
        merges=[tuple(merge) for merge in learnt["merges"]],  # type: ignore[misc]  # says texts
        model_max_length=TEXT["max_position_embeddings"],
    )
    images = CLIPImageProcessor(
        size={"shortest_edge": IMAGE_SIDE}, crop_size={"height": IMAGE_SIDE, "width": IMAGE_SIDE}
    )
    return CLIPProcessor(images, tokenizer)


def embed_images(model: CLIPModel, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeds images of any side that is a multiple of the patch size.

    pixels float [B, 3, S, S] → normalised embeddings [B, D], pooled features [B, hidden] before
    projection. The position table is interpolated where S isn't the model's own image side.
    """
    seen = model.vision_model(pixel_values=pixels, interpolate_pos_encoding=True)
    pooled = seen.pooler_output
    return normalize(model.visual_projection(pooled), dim=-1), pooled


def embed_texts(model: CLIPModel, tokens: torch.Tensor) -> torch.Tensor:
    """Token ids [B, T], padded with the end token → normalised embeddings [B, D].

    Short captions are read apart from long ones, so that less padding is computed.
    """
    lengths = (tokens != EOS_ID).sum(1) + 1
    order = lengths.argsort()
    halves = [
        model.text_model(input_ids=tokens[half, : lengths[half].max()]).pooler_output
        for half in order.chunk(2)
    ]
    pooled = torch.cat(halves)[order.argsort()]
    return normalize(model.text_projection(pooled), dim=-1)
