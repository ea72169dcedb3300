"""The first stage beside the demo checkpoint: its record, and what the two find together."""

import json
from functools import partial

import pytest
import torch
from safetensors.torch import load_file

from cascade import Cascade, Stage
from compress.budgets import token_prices
from compress.making.checkpoints import find_base
from compress.making.keys import read_keys
from compress.searching import combinations
from corpora.scenes import SEEDS, captions, render, scene
from demo.first_stage import FirstStageOptions, main, vision_alone
from evaluation.experiment.first_stages import belongs_to
from evaluation.retrieval import agreement
from pruning_mechanism import Mask, image_embeddings, load, prune, read_record
from pruning_mechanism.checkpoints.checkpoint import fingerprint
from pruning_mechanism.deployed.seconds import measure
from tests.conftest import tiny_clip
from tests.docs.markdown import ROOT

FULL = ROOT / "demo" / "clip-scenes"
FIRST = ROOT / "demo" / "clip-scenes-first"
UNSEEN = 100
"""Held-out scenes that are searched."""


@pytest.fixture(scope="module")
def searched():
    """The cascade of both, the full tower alone, and queries, over scenes that neither has seen."""
    full = Stage.load(FULL)
    first = Stage.load(FIRST, texts=full)
    drawn = [scene(SEEDS["validation"], number) for number in range(UNSEEN)]
    both, alone = Cascade([first, full], m=[25]), Cascade([full], m=[])
    images = [render(each) for each in drawn]
    for search in (both, alone):
        search.index(images, keys=range(UNSEEN))
    return both, alone, [captions(each)[0] for each in drawn]


def top(search, queries):
    found = search.search_many(queries, k=10)
    return torch.tensor([[hit.key for hit in hits] for hits in found])


def test_the_cascade_finds_what_the_full_tower_finds(searched):
    both, alone, queries = searched
    assert agreement(top(both, queries), top(alone, queries)) >= 93


def test_its_record_names_the_checkpoint_beside_it_and_no_path():
    record = read_record(FIRST)
    own = fingerprint(str(FULL), load(FULL))
    assert (record.base, record.base_fingerprint) == (FULL.name, own)
    assert belongs_to(FIRST, own)
    assert find_base(record, FIRST) == str(FULL)
    assert record.rule == "joint"
    assert "/" not in json.dumps(record.settings)


def test_it_has_seen_training_scenes_only():
    keys = read_keys(FIRST)
    assert len(keys) == read_record(FIRST).samples
    assert all(key.startswith("scenes/train/") for key in keys)


def test_it_is_small_and_holds_no_code():
    files = [file for file in FIRST.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 1_000_000
    assert not [file for file in files if file.suffix == ".py"]
    stored = load_file(FIRST / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}


def test_the_vision_tower_alone_embeds_images_as_the_whole_model_does():
    model = tiny_clip()
    mask = Mask.dense(model.config)
    mask.heads[0, :2], mask.neurons[1, 5:] = False, False
    smaller = prune(model, mask)
    alone = vision_alone(smaller)
    pixels = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(
            image_embeddings(alone, pixels), image_embeddings(smaller, pixels), rtol=0, atol=0
        )
    assert not hasattr(alone, "text_model")


def test_the_command_makes_such_a_stage(clip_directory, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(combinations, "MERGED", {"constant": (0.25,)})
    monkeypatch.setattr(token_prices, "measure", partial(measure, repetitions=1))
    made = tmp_path / "first"
    options = FirstStageOptions(
        model=str(clip_directory), corpus="folder", corpus_dir=folder, samples=16,
        search_samples=16, score_samples=16, curve_samples=8, tries=1, exits=(2,),
        latency_constraint=(1.0,), output=made,
    )  # fmt: skip
    main(options)
    full = Stage.load(clip_directory)
    first = Stage.load(made, texts=full)
    assert first.text_name == full.text_name
    assert belongs_to(made, fingerprint(str(clip_directory), full.model))
    assert not list(made.glob("*.py"))
    assert "auto_map" not in json.loads((made / "config.json").read_text())
