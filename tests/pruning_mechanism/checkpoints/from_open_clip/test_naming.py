"""What can't be had by a name of open_clip's is refused in one line, before anything is written."""

import json
import sys

import open_clip
import pytest
import torch
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from safetensors.torch import save_file

from compress import align
from compress.command import run_command
from pruning_mechanism import TowerError
from pruning_mechanism.checkpoints.from_open_clip import naming
from pruning_mechanism.checkpoints.from_open_clip.converting import directory_of
from pruning_mechanism.checkpoints.from_open_clip.naming import find, is_open_clip


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    naming._from_hub.cache_clear()
    yield
    naming._from_hub.cache_clear()
    assert not (tmp_path / "cache").exists() or not list((tmp_path / "cache").rglob("*.*"))


def refused(spec: str) -> str:
    with pytest.raises(TowerError) as caught:
        directory_of(spec)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("path", ["openai/clip-vit-base-patch32", "results/fisher", "demo"])
def test_other_names_are_left_as_they_are(path):
    assert not is_open_clip(path)
    assert directory_of(path) == path


def test_an_unknown_name_is_answered_with_near_ones():
    message = refused("open_clip:MobileCLIP2-S1")
    assert "no model 'MobileCLIP2-S1'" in message
    assert "MobileCLIP2-S0" in message
    assert "open_clip writes it MobileCLIP2-S0" in refused("open_clip:mobileclip2-s0:random")
    assert "and 132 more" in refused("open_clip:zzzz")


def test_without_a_tag_there_must_be_one_set_of_weights():
    message = refused("open_clip:ViT-B-32")
    assert "openai, " in message
    assert "name one, as in open_clip:ViT-B-32:openai" in message
    assert "lists no weights of ViT-e-14" in refused("open_clip:ViT-e-14")


def test_an_unknown_tag_is_answered_with_the_known_ones():
    message = refused("open_clip:MobileCLIP-B:datacomp")
    assert "no weights 'datacomp'" in message
    assert "datacompdr, datacompdr_lt" in message


@pytest.mark.parametrize("suffix", naming.PICKLED)
def test_pickled_files_are_never_read(suffix, tmp_path):
    file = tmp_path / f"weights{suffix}"
    file.write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    message = refused(f"open_clip:MobileCLIP2-S0:{file}")
    assert "is pickled" in message
    assert "safetensors.torch.save_file" in message


def test_files_that_are_not_there_or_hold_something_else(tmp_path):
    assert "there is no file" in refused(f"open_clip:RN50:{tmp_path}/gone.safetensors")
    assert "no open_clip_config.json" in refused(f"open_clip:{tmp_path}")
    file = tmp_path / "other.safetensors"
    save_file({"one": torch.ones(1)}, file)
    assert "not those of ViT-S-32" in refused(f"open_clip:ViT-S-32:{file}")
    file.write_bytes(b"nothing")
    assert "not those of ViT-S-32" in refused(f"open_clip:ViT-S-32:{file}")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"embed_dim": 8}}))
    assert "model_cfg of embed_dim" in refused(f"open_clip:{tmp_path}")


def test_images_that_weights_disagree_about_need_a_configuration(tmp_path, monkeypatch):
    file = tmp_path / "weights.safetensors"
    save_file({"one": torch.ones(1)}, file)
    known = open_clip.pretrained.get_pretrained_cfg
    changed = {"datacompdr": {"mean": (0.1, 0.1, 0.1)}}
    monkeypatch.setattr(
        open_clip.pretrained,
        "get_pretrained_cfg",
        lambda name, tag: known(name, tag) | changed.get(tag, {}),
    )
    assert "prepared in several ways" in refused(f"open_clip:MobileCLIP-B:{file}")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (LocalEntryNotFoundError("no connection"), "can't be reached: no connection"),
        (OSError("no route"), "can't be reached: no route"),
    ],
)
def test_a_hub_that_is_out_of_reach(error, expected, monkeypatch):
    def failing(*_asked, **_others):
        raise error

    monkeypatch.setattr("huggingface_hub.hf_hub_download", failing)
    message = refused("open_clip:MobileCLIP2-S0")
    assert "timm/MobileCLIP2-S0-OpenCLIP on the hub" in message
    assert expected in message


def test_what_is_fetched_is_safetensors_alone(monkeypatch):
    asked = []

    def absent(_repository, name):
        asked.append(name)
        raise EntryNotFoundError("404")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", absent)
    assert "has no safetensors file" in refused("open_clip:ViTamin-S")
    assert asked == ["pytorch_model.safetensors", "open_clip_model.safetensors"]


def test_weights_of_openai_come_with_their_activation(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_: str(tmp_path / "file"))
    assert find("open_clip:ViT-B-32:openai").model["quick_gelu"]
    assert not find("open_clip:ViT-B-32:laion2b_s34b_b79k").model["quick_gelu"]


def test_without_open_clip_the_line_to_install_it_is_given(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    assert "needs open_clip: pip install 'clip-cascade[train]'" in refused("open_clip:RN50:random")


def test_a_command_ends_with_one_line_and_status_2(capsys, tmp_path):
    flags = ["--model", "open_clip:MobileCLIP2-S1", "--output", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as caught:
        run_command(align.main, align.AlignCommandOptions, "compress.align", flags)
    assert caught.value.code == 2
    assert "error: open_clip:MobileCLIP2-S1: open_clip has no model" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
