"""Weights are taken whole or not at all, and what was made of their names is said."""

import json
import os
import stat

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPModel,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
    SiglipVisionModel,
)

from pruning_mechanism import Mask, TowerError, image_embeddings, load, prune, save, text_embeddings
from pruning_mechanism.checkpoints.weights import stripped_names
from tests.conftest import tiny_processor
from tests.pruning_mechanism.conftest import (
    TOWERS,
    embeddings,
    random_slim_mask,
    tiny_inputs,
    tiny_model,
)

PIXELS, TOKENS = tiny_inputs("vision"), tiny_inputs("text")
VISION = [family for family, tower in TOWERS if tower == "vision"]


@pytest.fixture
def rename(tmp_path):
    """Writes a tiny CLIP with its weights under other names, or with some gone or added."""

    def written(change, model=None) -> str:
        directory = tmp_path / "checkpoint"
        (model or tiny_model("clip")).save_pretrained(directory)
        file = directory / "model.safetensors"
        save_file(change(load_file(file)), file, metadata={"format": "pt"})
        return directory

    return written


def answers(model) -> list[torch.Tensor]:
    with torch.no_grad():
        return [image_embeddings(model, PIXELS), text_embeddings(model, TOKENS)]


@pytest.mark.parametrize(
    "prefix", ["_orig_mod.", "module.", "model.", "module._orig_mod.", "model._orig_mod.module."]
)
def test_what_training_loops_put_before_names_is_taken_off_and_said(rename, prefix, caplog):
    directory = rename(lambda weights: {f"{prefix}{k}": v for k, v in weights.items()})
    found = answers(load(directory))
    assert all(map(torch.equal, found, answers(tiny_model("clip"))))
    assert f"took {prefix!r} off" in caplog.text


def test_a_part_that_was_compiled_or_wrapped_alone_is_found(rename, caplog):
    def wrapped(weights):
        into = ("vision_model.", "vision_model._orig_mod._fsdp_wrapped_module.")
        return {name.replace(*into): tensor for name, tensor in weights.items()}

    assert all(map(torch.equal, answers(load(rename(wrapped))), answers(tiny_model("clip"))))
    assert "_orig_mod" in caplog.text


def test_pruned_models_too(rename):
    model = prune(tiny_model("clip"), random_slim_mask(3))
    directory = rename(lambda weights: {f"module.{k}": v for k, v in weights.items()}, model)
    assert all(map(torch.equal, answers(load(directory)), answers(model)))


def test_a_prefix_goes_only_where_all_names_have_it():
    names, stripped = stripped_names(["module.a.b", "module.module.c"])
    assert (list(names.values()), stripped) == (["a.b", "module.c"], "module.")
    assert stripped_names(["module.a", "b"]) == ({"module.a": "module.a", "b": "b"}, "")


@pytest.mark.parametrize(
    "name",
    [
        "visual_projection.weight",
        "text_projection.weight",
        "logit_scale",
        "vision_model.encoder.layers.2.mlp.fc2.bias",
        "text_model.embeddings.token_embedding.weight",
        "vision_model.pre_layrnorm.weight",
    ],
)
def test_a_missing_weight_is_named(rename, name):
    directory = rename(lambda weights: {k: v for k, v in weights.items() if k != name})
    with pytest.raises(TowerError, match=f"lacks weights that its model needs: {name}") as caught:
        load(directory)
    assert "\n" not in str(caught.value)


def test_many_missing_weights_are_counted(rename):
    layer = "vision_model.encoder.layers.2."
    directory = rename(lambda weights: {k: v for k, v in weights.items() if layer not in k})
    with pytest.raises(TowerError, match=rf"{layer}layer_norm1\.bias, .* and 13 more"):
        load(directory)


def test_an_unknown_prefix_is_an_error_that_says_what_the_file_calls_it(rename):
    directory = rename(lambda weights: {f"student.{k}": v for k, v in weights.items()})
    with pytest.raises(TowerError, match=r"it has 'student\.\w+.*without that prefix"):
        load(directory)


@pytest.mark.parametrize("family", VISION)
def test_no_weight_of_any_family_may_be_missing(rename, family):
    def without(weights):  # transformers writes some families' layers under other names
        name = next(each for each in sorted(weights) if each.endswith("0.mlp.fc1.weight"))
        return {each: tensor for each, tensor in weights.items() if each != name}

    with pytest.raises(TowerError, match="lacks weights"):
        load(rename(without, tiny_model(family)))


@pytest.mark.parametrize(
    "change",
    [
        lambda k: f"base_model.model.{k}".replace("q_proj.", "q_proj.base_layer."),
        lambda k: k.replace("q_proj.", "q_proj.base_layer."),
        lambda k: k.replace("q_proj.weight", "q_proj.lora_A.default.weight"),
        lambda k: k.replace("visual_projection.", "visual_projection.modules_to_save.default."),
        lambda k: f"module.base_model.model.{k}",
    ],
)
def test_adapters_that_are_not_merged_are_refused_with_what_to_do(rename, change):
    directory = rename(lambda weights: {change(k): v for k, v in weights.items()})
    with pytest.raises(TowerError, match="merge_and_unload"):
        load(directory)


def test_an_adapter_beside_the_weights_is_refused(rename):
    directory = rename(dict)
    (directory / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    with pytest.raises(TowerError, match="merge_and_unload"):
        load(directory)


def test_what_lies_beside_the_model_is_left_and_said(rename, caplog):
    beside = {"my_head.weight": torch.ones(1, 1), "seen.images": torch.tensor(7)}
    directory = rename(lambda weights: {**weights, **beside})
    assert all(map(torch.equal, answers(load(directory)), answers(tiny_model("clip"))))
    assert "did not read what is not part of the model: my_head.weight" in caplog.text


@pytest.mark.parametrize(
    "name", ["vision_model.encoder.layers.3.mlp.fc1.bias", "text_model.adapter.weight"]
)
def test_a_part_of_a_tower_without_a_place_in_the_configuration_is_an_error(rename, name):
    directory = rename(lambda weights: {**weights, name: torch.ones(24)})
    with pytest.raises(TowerError, match=f"no place for: {name}"):
        load(directory)


def test_fewer_layers_than_the_weights_have_are_an_error(rename):
    directory = rename(dict)
    config = json.loads((directory / "config.json").read_text())
    config["vision_config"]["num_hidden_layers"] = 2
    (directory / "config.json").write_text(json.dumps(config))
    with pytest.raises(TowerError, match=r"no place for: vision_model\.encoder\.layers\.2"):
        load(directory)


def test_position_ids_of_old_checkpoints_are_read_over(rename, caplog):
    ids = {
        f"{kind}_model.embeddings.position_ids": torch.arange(17)[None]
        for kind in ("vision", "text")
    }
    load(rename(lambda weights: {**weights, **ids}))
    assert not caplog.text


def test_a_vision_tower_without_its_projection_is_refused_by_name(tmp_path):
    tiny_model("clip").save_pretrained(tmp_path / "whole")
    CLIPVisionModel.from_pretrained(tmp_path / "whole").save_pretrained(tmp_path / "alone")
    with pytest.raises(TowerError, match=r"lacks .*visual_projection\.weight"):
        load(tmp_path / "alone")
    own = CLIPVisionModelWithProjection.from_pretrained(tmp_path / "whole")
    own.save_pretrained(tmp_path / "with")
    with torch.no_grad():
        found = image_embeddings(load(tmp_path / "with"), PIXELS)
    assert torch.equal(found, answers(tiny_model("clip"))[0])


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_a_vision_tower_is_read_out_of_the_weights_of_a_whole_model(tmp_path, kind):
    whole = tiny_model(kind)
    whole.save_pretrained(tmp_path / "whole")
    classes = {"clip": CLIPVisionModelWithProjection, "siglip": SiglipVisionModel}
    classes[kind].from_pretrained(tmp_path / "whole").save_pretrained(tmp_path / "alone")
    weights = load_file(tmp_path / "whole" / "model.safetensors")
    save_file(weights, tmp_path / "alone" / "model.safetensors", metadata={"format": "pt"})
    assert torch.equal(embeddings(load(tmp_path / "alone")), embeddings(whole))


def test_shards_are_read_and_a_missing_one_is_named(tmp_path):
    model = tiny_model("clip")
    model.save_pretrained(tmp_path, max_shard_size="10KB")
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 2
    assert all(map(torch.equal, answers(load(tmp_path)), answers(model)))
    shards[1].unlink()
    with pytest.raises(TowerError, match=f"incomplete: {shards[1].name}"):
        load(tmp_path)


@pytest.mark.parametrize(
    "index",
    ["[]", "{", '{"weight_map": {}}', '{"weight_map": {"a": "../model.safetensors"}}',
     '{"weight_map": {"a": 3}}', '{"weight_map": []}'],
)  # fmt: skip
def test_a_broken_index_of_shards_is_one_line(tmp_path, index):
    tiny_model("clip").config.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(TowerError, match=r"model\.safetensors\.index\.json") as caught:
        load(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("tower", "entry", "value"),
    [
        ("vision_config", "hidden_size", 10**9), ("vision_config", "num_hidden_layers", 10**9),
        ("vision_config", "image_size", 10**6), ("vision_config", "intermediate_size", 10**12),
        ("text_config", "vocab_size", 10**9), ("text_config", "num_hidden_layers", 10**9),
        ("text_config", "max_position_embeddings", 10**9), ("vision_config", "hidden_size", 20),
        ("vision_config", "patch_size", 2), ("vision_config", "num_channels", 4),
    ],
)  # fmt: skip
def test_sizes_other_than_those_of_the_weights_take_no_memory(rename, tower, entry, value):
    directory = rename(dict)
    config = json.loads((directory / "config.json").read_text())
    config[tower][entry] = value
    (directory / "config.json").write_text(json.dumps(config))
    with pytest.raises(TowerError, match=r"config\.json") as caught:
        load(directory)
    assert "\n" not in str(caught.value)


def test_the_type_of_weights_is_what_their_file_says(rename, caplog):
    directory = rename(dict)
    config = json.loads((directory / "config.json").read_text())
    config["dtype"] = "float16"
    (directory / "config.json").write_text(json.dumps(config))
    assert all(map(torch.equal, answers(load(directory)), answers(tiny_model("clip"))))


def test_a_tensor_that_is_stored_more_exactly_changes_nothing(rename):
    name = "vision_model.pre_layrnorm.weight"
    directory = rename(lambda weights: {**weights, name: weights[name].double()})
    assert all(map(torch.equal, answers(load(directory)), answers(tiny_model("clip"))))


@pytest.mark.parametrize("names", [[[]], True, "x" * 3, [3]])
def test_architectures_that_are_no_names_are_refused(rename, names):
    directory = rename(dict)
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"architectures": names}))
    with pytest.raises(TowerError, match="architectures"):
        load(directory)


def test_quantised_weights_are_refused(rename):
    directory = rename(
        lambda weights: {k: v.to(torch.int8) if v.ndim > 1 else v for k, v in weights.items()}
    )
    with pytest.raises(TowerError, match="quantised"):
        load(directory)


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o027, 0o002])
def test_all_files_of_a_result_are_as_the_umask_asks(tmp_path, mask):
    before = os.umask(mask)
    try:
        smaller = prune(tiny_model("clip"), random_slim_mask(3))
        save(smaller, tmp_path / "saved", tiny_processor())
        Mask.dense(tiny_model("clip").config).save(tmp_path / "saved" / "mask.safetensors")
    finally:
        os.umask(before)
    modes = {
        file.name: stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "saved").iterdir()
    }
    assert modes == dict.fromkeys(modes, 0o666 & ~mask)
    assert {"model.safetensors", "mask.safetensors", "config.json", "tokens.py"} <= modes.keys()


def test_what_was_saved_is_a_model_of_transformers(tmp_path):
    save(tiny_model("clip"), tmp_path, tiny_processor())
    assert all(
        map(torch.equal, answers(CLIPModel.from_pretrained(tmp_path)), answers(tiny_model("clip")))
    )
