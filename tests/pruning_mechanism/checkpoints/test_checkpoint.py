import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel, CLIPVisionModelWithProjection

from pruning_mechanism import (
    Compression,
    TowerError,
    image_embeddings,
    load,
    load_processor,
    prune,
    save,
    text_embeddings,
)
from pruning_mechanism.checkpoints import checkpoint
from pruning_mechanism.checkpoints.checkpoint import cast, stored_dtype
from tests.conftest import tiny_clip, tiny_processor
from tests.fresh import python
from tests.lanes import sweep
from tests.pruning_mechanism.conftest import random_slim_mask, tiny_inputs, tiny_model

ROOT = Path(__file__).resolve().parents[3]
PIXELS = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(2))
TOKENS = tiny_inputs("text")["input_ids"]
RECORD = Compression(
    rule="fisher", constraint="MAC 0.5", repair="rescale", base="tiny", base_fingerprint="none",
    corpus="scenes train", samples=8, seed=0, macs=1, mac_fraction=0.5, tower_macs=2,
    parameters=3, seconds=0.1,
)  # fmt: skip


def embeddings_in_fresh_process(directory: Path, cwd: Path, preamble: str, load: str):
    """What a process started in `cwd` computes for `PIXELS` and `TOKENS`."""
    save_file({"pixels": PIXELS, "tokens": TOKENS}, cwd / "inputs.safetensors")
    program = f"""
import sys, torch
{preamble}
from safetensors.torch import load_file, save_file
from transformers import AutoModel
model = {load}.eval()
inputs = load_file("inputs.safetensors")
with torch.no_grad():
    images = model.get_image_features(pixel_values=inputs["pixels"]).pooler_output
    texts = model.get_text_features(input_ids=inputs["tokens"]).pooler_output
    save_file({{"images": images, "texts": texts}}, "found.safetensors")
"""
    python("-c", program, cwd=cwd)
    found = load_file(cwd / "found.safetensors")
    return found["images"], found["texts"]


@pytest.fixture
def saved(tmp_path, request):
    """Where a model with both towers pruned is saved, and its embeddings."""
    model = tiny_model(getattr(request, "param", "clip"))
    for tower in ("vision", "text"):
        model = prune(model, random_slim_mask(9), tower)
    save(model, tmp_path / "smaller", tiny_processor(), RECORD)
    with torch.no_grad():
        expected = image_embeddings(model, PIXELS), text_embeddings(model, {"input_ids": TOKENS})
    return tmp_path / "smaller", expected


families = pytest.mark.parametrize(
    "saved", sweep(["clip", "metaclip_2", "siglip"], ["siglip"]), indirect=True
)


@families
def test_a_fresh_process_loads_what_was_saved(saved, tmp_path):
    directory, expected = saved
    found = embeddings_in_fresh_process(
        directory,
        tmp_path,
        f"sys.path.insert(0, {str(ROOT)!r}); import pruning_mechanism",
        f"AutoModel.from_pretrained({str(directory)!r})",
    )
    assert all(map(torch.equal, found, expected))


@families
def test_it_loads_with_remote_code_where_the_project_is_not_importable(
    saved, tmp_path, monkeypatch
):
    directory, expected = saved
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    block = (
        "class Block:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.split('.')[0] == 'pruning_mechanism': raise ImportError(name)\n"
        "sys.meta_path.insert(0, Block())\n"
        "try:\n    import pruning_mechanism\n    sys.exit('still importable')\n"
        "except ImportError: pass"
    )
    found = embeddings_in_fresh_process(
        directory,
        tmp_path,
        block,
        f"AutoModel.from_pretrained({str(directory)!r}, trust_remote_code=True)",
    )
    assert all(map(torch.equal, found, expected))


def test_the_directory_says_how_it_was_made_and_holds_no_pickle(saved):
    directory, _ = saved
    record = json.loads((directory / "compression.json").read_text())
    assert record["rule"] == "fisher"
    assert record["versions"]["torch"] == torch.__version__.split("+")[0]
    suffixes = {path.suffix for path in directory.iterdir()}
    assert suffixes == {".json", ".safetensors", ".py"}
    assert load_processor(directory).tokenizer("a red star")["input_ids"][0] == 0


def test_a_vision_only_directory_loads(tmp_path):
    model = CLIPVisionModelWithProjection(tiny_clip().config.vision_config).eval()
    model.save_pretrained(tmp_path)
    expected = image_embeddings(model, PIXELS)
    assert torch.equal(image_embeddings(load(tmp_path), PIXELS), expected)


def test_half_precision_is_computed_in_float32_and_says_so(tmp_path, caplog):
    tiny_clip().half().save_pretrained(tmp_path)
    checkpoint._say_once.cache_clear()
    model = load(tmp_path)
    assert next(model.parameters()).dtype == torch.float32
    assert "computed in float32 on the CPU" in caplog.text
    assert stored_dtype(tmp_path) == torch.float16


def test_full_precision_says_nothing(tmp_path, caplog):
    tiny_clip().save_pretrained(tmp_path)
    load(tmp_path)
    assert not caplog.text


def test_what_is_not_a_clip_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    bert = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=9)
    BertModel(bert).save_pretrained(tmp_path / "bert")
    (tmp_path / "empty").mkdir()
    for path, reason in (
        (tmp_path / "bert", "'bert' model, not a CLIP"),
        (tmp_path / "empty", "neither a model directory nor a model on the hub"),
        (tmp_path / "absent", "neither a model directory nor a model on the hub"),
    ):
        with pytest.raises(TowerError, match=reason) as caught:
            load(path)
        assert "\n" not in str(caught.value)


def test_pickled_weights_are_not_read(tmp_path):
    model = tiny_clip()
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(TowerError, match="safetensors"):
        load(tmp_path)


def test_weights_cut_short_are_refused_in_one_line(tmp_path):
    tiny_clip().save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(TowerError, match="does not load"):
        load(tmp_path)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused_by_name(tmp_path, wrong):
    model = tiny_clip()
    with torch.no_grad():
        model.text_model.encoder.layers[1].mlp.fc2.weight[3, 5] = wrong
    model.save_pretrained(tmp_path)
    place = r"text_model\.encoder\.layers\.1\.mlp\.fc2\.weight holds NaN or infinity in 1 of"
    with pytest.raises(TowerError, match=place):
        load(tmp_path)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), float("-inf")])
def test_what_load_would_refuse_is_not_saved(tmp_path, wrong):
    model = tiny_clip()
    with torch.no_grad():
        model.visual_projection.weight[0, 0] = wrong
    with pytest.raises(TowerError, match=r"visual_projection\.weight holds NaN or infinity"):
        save(model, tmp_path / "saved", tiny_processor(), RECORD)
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_weights_that_a_type_holds_are_stored_in_it(tmp_path, dtype):
    model, notes = cast(tiny_clip(), dtype)
    save(model, tmp_path, tiny_processor())
    assert (notes, stored_dtype(tmp_path)) == ((), dtype)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == str(dtype)[6:]


@pytest.mark.parametrize(
    ("scale", "dtype", "said"),
    [
        (lambda weight: weight.abs().clamp(min=1) * 87_458, torch.float16, "which is infinite"),
        (lambda weight: weight * 1e-12, torch.float16, "would be all zero"),
        (lambda weight: weight.abs().clamp(min=1) * 3.4e38, torch.bfloat16, "which is infinite"),
    ],
)
def test_weights_that_a_half_type_does_not_hold_are_stored_in_float32(tmp_path, scale, dtype, said):
    model = tiny_clip()
    with torch.no_grad():
        weight = model.visual_projection.weight
        weight.copy_(scale(weight).clamp(max=torch.finfo(torch.float32).max))
    expected = model.visual_projection.weight.clone()
    model, (note,) = cast(model, dtype)
    assert "visual_projection.weight" in note
    assert said in note
    save(model, tmp_path, tiny_processor())
    assert stored_dtype(tmp_path) == torch.float32
    assert torch.equal(load(tmp_path).visual_projection.weight, expected)
