"""Names of checkpoints that a library's name stands before: what is published, what is read."""

import pytest

from commands.inputs import inputs_of
from commands.places import place_of
from commands.published import published_name
from compress.align import AlignCommandOptions


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("open_clip:ViT-B-32", ("open_clip:", "ViT-B-32")),
        ("open_clip:ViT-B-32:openai", ("open_clip:ViT-B-32:", "openai")),
        ("open_clip:ViT-B-32:C:\\a.safetensors", ("open_clip:ViT-B-32:", "C:\\a.safetensors")),
        ("openai/clip-vit-base-patch32", ("", "openai/clip-vit-base-patch32")),
        ("/a/b:c", ("", "/a/b:c")),
    ],
)
def test_what_stands_before_a_place(name, expected):
    assert place_of(name) == expected


def test_names_are_published_without_directories(tmp_path):
    file = tmp_path / "secret" / "weights.safetensors"
    file.parent.mkdir()
    file.touch()
    assert published_name(f"open_clip:ViT-B-32:{file}") == "open_clip:ViT-B-32:weights.safetensors"
    assert published_name(f"open_clip:{file.parent}") == "open_clip:secret"
    assert published_name("open_clip:ViT-B-32:openai") == "open_clip:ViT-B-32:openai"


def test_a_file_behind_a_name_is_an_input(tmp_path):
    file = tmp_path / "weights.safetensors"
    file.touch()
    (found,) = inputs_of(AlignCommandOptions(model=f"open_clip:ViT-B-32:{file}"))
    assert (found.flag, found.path, found.checkpoint) == ("--model", file, True)
    assert not inputs_of(AlignCommandOptions(model="open_clip:ViT-B-32:openai"))
