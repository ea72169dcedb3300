"""A SigLIP as its publisher ships it: spiece.model, and a tokenizer written in Python."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, SiglipImageProcessor

from cascade import Cascade, Stage
from tests.pruning_mechanism.conftest import tiny_model

sentencepiece = pytest.importorskip("sentencepiece")
TEXTS = ["A Red star on SAND!", "x " * 200, "blue"]


def write_siglip(directory: Path, words: str = "red blue green star disc sand on a the of") -> Path:
    """A tiny SigLIP in the layout of google/siglip-base-patch16-224."""
    sentences = [f"{a} {b} {c}" for a in words.split() for b in words.split() for c in "abc"]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_writer=model, vocab_size=22,
        model_type="unigram", pad_id=-1, bos_id=-1, eos_id=1, unk_id=2,
        control_symbols=["<pad0>"], hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    tiny_model("siglip").save_pretrained(directory)
    (directory / "spiece.model").write_bytes(model.getvalue())
    SiglipImageProcessor(size={"height": 16, "width": 16}).save_pretrained(directory)
    prepared = json.loads((directory / "preprocessor_config.json").read_text())
    settings = {
        "tokenizer_class": "SiglipTokenizer", "processor_class": "SiglipProcessor",
        "do_lower_case": True, "eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>",
        "model_max_length": 16, "model_input_names": ["input_ids"], "sp_model_kwargs": {},
    }  # fmt: skip
    for name, content in (
        ("preprocessor_config.json", prepared | {"processor_class": "SiglipProcessor"}),
        ("tokenizer_config.json", settings),
    ):
        (directory / name).write_text(json.dumps(content))
    return directory


@pytest.fixture(scope="module")
def siglip(tmp_path_factory):
    return write_siglip(tmp_path_factory.mktemp("siglip"))


def test_texts_are_embedded_as_by_transformers(siglip):
    stage, processor = Stage.load(siglip), AutoProcessor.from_pretrained(siglip)
    tokens = processor(
        text=TEXTS, padding="max_length", truncation=True, max_length=16, return_tensors="pt"
    )
    with torch.no_grad():
        expected = tiny_model("siglip").get_text_features(input_ids=tokens["input_ids"])
    expected = torch.nn.functional.normalize(expected.pooler_output, dim=1)
    torch.testing.assert_close(stage.encode_texts(TEXTS), expected)


def test_a_text_name_says_what_the_tokens_depend_on(siglip, tmp_path):
    name = Stage.load(siglip).text_name
    again = Stage.load(siglip)
    again.encode_texts(TEXTS)
    assert again.text_name == name
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in siglip.iterdir():
        (moved / file.name).write_bytes(file.read_bytes())
    assert Stage.load(moved).text_name == name
    settings = json.loads((moved / "tokenizer_config.json").read_text())
    (moved / "tokenizer_config.json").write_text(json.dumps(settings | {"do_lower_case": False}))
    assert Stage.load(moved).text_name != name
    other = write_siglip(tmp_path / "other", "cat dog bird on a the of left right small big")
    assert Stage.load(other).text_name != name


def test_it_searches(siglip):
    cascade = Cascade([Stage.load(siglip)])
    cascade.index([Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")])
    assert {hit.key for hit in cascade.search("a red star", 2)} == {0, 1}


WITHOUT = """
import sys
sys.modules["sentencepiece"] = None
import torch
from PIL import Image
from cascade import Stage
from pruning_mechanism import Mask, TowerError, load, load_processor, prune, save
stage = Stage.load(sys.argv[1])
print(tuple(stage.encode_images([Image.new("RGB", (20, 20), "red")]).shape))
print(stage.name)
for read in (lambda: stage.encode_texts(["red"]), lambda: stage.text_name):
    try:
        print("read", read())
    except TowerError as error:
        print(error)
model = load(sys.argv[1])
save(prune(model, Mask.dense(model.config)), sys.argv[2], load_processor(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def without(siglip, tmp_path_factory) -> tuple[list[str], Path]:
    """What a process without sentencepiece says, and where it has saved what it pruned."""
    made = tmp_path_factory.mktemp("without") / "made"
    line = [sys.executable, "-c", WITHOUT, siglip, made]
    asked = subprocess.run(line, capture_output=True, text=True, check=True)
    return asked.stdout.splitlines(), made


def test_without_sentencepiece_images_are_read_and_texts_say_what_is_needed(siglip, without):
    shape, name, *said = without[0]
    assert (shape, name) == ("(1, 16)", Stage.load(siglip).name)
    assert len(said) == 2
    assert all("pip install sentencepiece" in line for line in said)


def test_what_is_made_without_sentencepiece_keeps_the_tokenizer(siglip, without):
    whole, pruned = Stage.load(siglip), Stage.load(without[1])
    torch.testing.assert_close(pruned.encode_texts(TEXTS), whole.encode_texts(TEXTS))
    assert pruned.text_name == whole.text_name
