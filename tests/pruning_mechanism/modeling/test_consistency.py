"""What a configuration may say is the same whether a tower is made, loaded, or built by others."""

import json

import pytest
import torch
from transformers import AutoModel

from pruning_mechanism import Reduction, TowerError, load, prune, reduce
from pruning_mechanism.modeling.consistency import check_tower
from tests.fresh import python
from tests.pruning_mechanism.conftest import embeddings, random_slim_mask, tiny_model

MAKE = {
    "slim": lambda: prune(tiny_model("clip"), random_slim_mask(5)),
    "kept": lambda: reduce(
        tiny_model("clip"), Reduction(kept_patches=8, patch_rule="grid", layers=2)
    ),
    "fewer": lambda: reduce(
        tiny_model("clip"),
        Reduction(merged_per_layer=(2, 2, 0), ranked_per_layer=(0, 8, 0), ranker="attention"),
    ),
    "sizes": lambda: reduce(
        tiny_model("clip"),
        Reduction(resolutions=(8, 16), resolution_bounds=(0.5,), resolution_shares=(0.25, 0.75)),
    ),
    "texts": lambda: reduce(tiny_model("clip"), Reduction(ranked_share_per_layer=(1.0, 0.5, 0.5))),
    "siglip": lambda: prune(tiny_model("siglip"), random_slim_mask(5)),
    "dense": lambda: tiny_model("clip"),
}
WRONG = [
    *((made, name, value) for made in ("slim", "siglip") for name, value in [
        ("heads_per_layer", [1, 2]), ("heads_per_layer", [1, 2, 5]),
        ("heads_per_layer", [1, 2, -1]),
        ("heads_per_layer", [1, 2, True]), ("heads_per_layer", [1, 2, 1.0]),
        ("heads_per_layer", "123"), ("heads_per_layer", 3), ("heads_per_layer", {}),
        ("neurons_per_layer", [1, 2, 25]), ("neurons_per_layer", [1, 2, 3, 4]),
        ("query_key_sizes", [1, 1, 5]), ("query_key_sizes", [0, 0, 0]), ("value_sizes", [0, 0, 0]),
        ("value_sizes", [[1], 1, 1]), ("num_hidden_layers", 4), ("num_hidden_layers", 2),
        ("num_hidden_layers", 0), ("num_hidden_layers", -1), ("num_hidden_layers", 10**9),
        ("num_hidden_layers", "3"), ("num_hidden_layers", True), ("num_hidden_layers", None),
    ]),
    *(("kept", name, value) for name, value in [
        ("kept_patches", 0), ("kept_patches", -1), ("kept_patches", 17), ("kept_patches", 100),
        ("kept_patches", "8"), ("kept_patches", 8.0), ("kept_patches", True),
        ("kept_patches", None), ("patch_rule", "unknown"), ("patch_rule", 3), ("patch_seed", -1),
        ("patch_seed", "0"), ("patch_seed", 10**30), ("dense_layers", 1), ("dense_layers", "3"),
        ("dense_image_size", 1), ("dense_patch_size", 4), ("dense_patch_size", "8"),
        ("aligned_features", -1), ("aligned_features", 1.5),
        ("aligned_features", True), ("aligned_tokens", "class"), ("aligned_tokens", 1),
        ("num_hidden_layers", 0), ("num_hidden_layers", -1),
        ("num_hidden_layers", 3), ("num_hidden_layers", 1), ("resolutions", [8, 16]),
        ("image_size", 18), ("image_size", [16, 16]),
    ]),
    *(("fewer", name, value) for name, value in [
        ("merged_per_layer", [2, 2]), ("merged_per_layer", [2, 2, 0, 0]),
        ("merged_per_layer", [2, 2, -1]), ("merged_per_layer", [2, 2, 0.5]),
        ("merged_per_layer", 2), ("merged_per_layer", [10**9, 0, 0]), ("merged_per_layer", "220"),
        ("ranked_per_layer", [0, 8]), ("ranked_per_layer", [0, -8, 0]),
        ("ranked_per_layer", [0, 17, 0]), ("ranked_per_layer", [None, 8, 0]),
        ("ranked_per_layer", None), ("ranker", "unknown"), ("ranker", 1), ("ranker", "learned"),
    ]),
    *(("sizes", name, value) for name, value in [
        ("resolutions", [16, 8]), ("resolutions", [8, 8, 16]), ("resolutions", []),
        ("resolutions", [8]), ("resolutions", [8, 17]), ("resolutions", [8, 32]),
        ("resolutions", [0, 16]), ("resolutions", [8, "16"]), ("resolutions", 16),
        ("resolutions", None), ("resolution_bounds", []), ("resolution_bounds", ["0.5"]),
        ("resolution_bounds", [float("nan")]), ("resolution_shares", [0.5]),
        ("resolution_shares", [0.5, 0.6]), ("resolution_shares", [-0.5, 1.5]),
        ("resolution_shares", None), ("kept_patches", 8),
    ]),
    *(("texts", "ranked_share_per_layer", value) for value in [
        [1.0, 0.5], [1.0, 0.5, 0], [1.0, 0.5, 1.5], [1.0, 0.5, True], [1.0, 0.5, "0.5"], 0.5,
        [1.0, 0.5, float("nan")],
    ]),
    ("texts", "kept_patches", 8), ("kept", "ranked_share_per_layer", [1.0, 0.5, 0.5]),
    *(("dense", name, value) for name, value in [
        ("heads_per_layer", [1, 2, 3]), ("kept_patches", 8), ("merged_per_layer", [1, 1, 1]),
        ("hidden_size", 0), ("hidden_size", -16), ("hidden_size", 16.0), ("hidden_size", None),
        ("num_attention_heads", 0), ("num_attention_heads", 5), ("intermediate_size", "24"),
        ("num_hidden_layers", 10**9), ("image_size", 0), ("image_size", 2), ("patch_size", 0),
        ("patch_size", "4"), ("num_channels", -3), ("image_size", []), ("image_size", [16]),
    ]),
]  # fmt: skip


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    place = tmp_path_factory.mktemp("saved")
    for name, make in MAKE.items():
        make().save_pretrained(place / name)
    return place


@pytest.fixture
def tampered(saved, tmp_path):
    """A directory of a model's with one entry of its reduced tower's configuration changed."""

    def changed(made: str, name: str, value: object):
        directory = tmp_path / "tampered"
        directory.mkdir()
        for file in (saved / made).iterdir():
            (directory / file.name).symlink_to(file)
        config = json.loads((directory / "config.json").read_text())
        config["text_config" if made == "texts" else "vision_config"][name] = value
        (directory / "config.json").unlink()
        (directory / "config.json").write_text(json.dumps(config))
        return directory

    return changed


@pytest.mark.parametrize(("made", "name", "value"), WRONG)
def test_an_entry_that_no_rule_writes_is_refused_in_one_line(tampered, made, name, value):
    with pytest.raises(TowerError) as caught:
        load(tampered(made, name, value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("made", "name", "value"),
    [case for case in WRONG if case[0] in ("kept", "fewer", "sizes", "texts", "slim") and
     case[1] not in ("num_hidden_layers", "image_size", "ranker")],
)  # fmt: skip
def test_the_models_themselves_refuse_it_too(tampered, made, name, value):
    """Whoever loads by `AutoModel` gets an error, not another tower."""
    with pytest.raises(Exception, match=r"\w") as caught:
        AutoModel.from_pretrained(tampered(made, name, value))
    assert (
        isinstance(caught.value, (ValueError, TypeError)) or "Strict" in type(caught.value).__name__
    )


@pytest.mark.parametrize("made", MAKE)
def test_what_was_made_is_as_it_must_be(saved, made):
    model = MAKE[made]()
    check_tower(model.config.vision_config)
    check_tower(model.config.text_config)
    assert torch.equal(embeddings(load(saved / made)), embeddings(model))


def test_remote_code_checks_as_well(tampered, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    directory = tampered("kept", "kept_patches", 17)
    program = (
        "import sys; from transformers import AutoModel\n"
        "try: AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)\n"
        "except ValueError as error: print(error)"
    )
    environment = {"PYTHONPATH": "", "HF_MODULES_CACHE": str(tmp_path / "modules"), "PATH": ""}
    asked = python("-c", program, directory, cwd=tmp_path, env=environment)
    assert "17 kept patches: images have 16" in asked.stdout
