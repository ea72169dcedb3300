"""Tiny CLIPs with random weights, a tiny corpus, and where the development data lies.

Every test computes on one thread, and so do the processes that it starts: threads that wait for
one another stall as soon as something else needs a core. `make test` runs as many tests at once as
there are cores instead. Benchmarks keep the threads that they are started with.
"""

import gc
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if "--benchmark-only" not in sys.argv:  # read by each library when it is imported
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

from tests.lanes import examples, mark_slow

if TYPE_CHECKING:  # whoever only hands tests out needs neither of them, and they take seconds
    from transformers import CLIPModel, CLIPProcessor

gc.disable()  # imports leave no garbage; `pytest_collection_finish` enables it
settings.register_profile("busy machines", deadline=None, max_examples=examples(25, 100))
settings.load_profile("busy machines")

SHARED = Path(__file__).resolve().parents[2] / "shared"
SENTENCE = "a red green blue big small square disc star on the left right top of with and"
WORDS = SENTENCE.split()


def tiny_clip(seed: int = 0, **vision) -> "CLIPModel":
    """A CLIP of 3 layers x 4 heads x 24 neurons on 16 px images; weights large enough to matter."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(seed)
    config = CLIPConfig(
        vision_config={
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": 16,
            "patch_size": 4,
            "initializer_factor": 3.0,
            "projection_dim": 8,
            **vision,
        },
        text_config={
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "vocab_size": len(WORDS) + 3,
            "max_position_embeddings": 16,
            "bos_token_id": 0,
            "eos_token_id": 1,
            "pad_token_id": 1,
            "projection_dim": 8,
        },
        projection_dim=8,
    )
    model = CLIPModel(config).eval()
    with torch.no_grad():  # biases start at 0, where a lost bias would go unnoticed
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.3)
    return model


def tiny_processor(size: int = 16) -> "CLIPProcessor":
    """A processor for `tiny_clip`: a vocabulary of whole words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import CLIPImageProcessor, CLIPProcessor, PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(["<s>", "</s>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    images = CLIPImageProcessor(
        size={"shortest_edge": size}, crop_size={"height": size, "width": size}
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
        unk_token="<unk>",
        model_max_length=16,
    )
    return CLIPProcessor(images, fast)


def pytest_collection_modifyitems(items) -> None:
    """Mark the slow tests, which `make test-fast` leaves out."""
    mark_slow(items)


def pytest_collection_finish() -> None:
    """Leave the libraries, a million objects that stay, out of every later search for garbage."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def checkpoints_seen(tmp_path_factory):
    """Where commands note which checkpoint lies where: not in the own cache of who runs them."""
    place = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(place))
        yield place / "clip-cascade" / "checkpoints.json"


@pytest.fixture
def clip() -> "CLIPModel":
    return tiny_clip()


@pytest.fixture(scope="session")
def clip_directory(tmp_path_factory) -> Path:
    """`tiny_clip` with its processor in the Hugging Face layout."""
    directory = tmp_path_factory.mktemp("checkpoint") / "tiny"
    tiny_clip().save_pretrained(directory)
    tiny_processor().save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def shared() -> Path:
    """The development data; the test is skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("the development data isn't here")
    return SHARED


COLOURS = {"red": (200, 30, 40), "green": (30, 160, 60), "blue": (40, 60, 190)}


def write_folder(root: Path, split: str, images: int, seed: int) -> None:
    """An imagefolder of noisy colour fields with two captions each."""
    rng = np.random.default_rng(seed)
    place = root / split
    place.mkdir(parents=True)
    lines = []
    for number in range(images):
        name = list(COLOURS)[number % 3]
        pixels = np.clip(rng.normal(COLOURS[name], 40, (20, 24, 3)), 0, 255).astype("uint8")
        file = f"{split}-{number:03d}.png"
        Image.fromarray(pixels).save(place / file)
        captions = [
            f"a big {name} square",
            f"a {name} square on the {'left' if number % 2 else 'right'}",
        ]
        lines.append(json.dumps({"file_name": file, "captions": captions}))
    (place / "metadata.jsonl").write_text("\n".join(lines))


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """A corpus of 16 training and 14 validation images."""
    root = tmp_path_factory.mktemp("corpus")
    write_folder(root, "train", 16, 0)
    write_folder(root, "validation", 14, 1)
    return root


@pytest.fixture(scope="session")
def hundred(tmp_path_factory):
    """A corpus of 100 training images: enough to train on."""
    root = tmp_path_factory.mktemp("hundred")
    write_folder(root, "train", 100, 0)
    return root
