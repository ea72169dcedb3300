"""A processor belongs to its model, or that is said before anything is computed."""

import json
import shutil
from pathlib import Path

import pytest
from transformers import CLIPImageProcessor, CLIPProcessor

from cascade import Stage
from pruning_mechanism import Reduction, TowerError, check_belongs, load, load_processor, reduce
from tests.conftest import tiny_clip, tiny_processor
from tests.fresh import python
from tests.pruning_mechanism.conftest import tiny_model


def processor(**images) -> CLIPProcessor:
    own = tiny_processor()
    own.image_processor = CLIPImageProcessor(
        **{"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}, **images}
    )
    return own


def square(side: int) -> dict[str, int]:
    return {"height": side, "width": side}


@pytest.mark.parametrize(
    "images",
    [
        {},
        {"size": {"shortest_edge": 20}},
        {"size": square(16), "do_center_crop": False},
        {"size": square(16), "crop_size": square(224), "do_center_crop": False},
        {"size": {"shortest_edge": 16}, "do_center_crop": False},
        {"do_resize": False},
        {"do_normalize": False},
    ],
)
def test_what_makes_images_of_the_towers_size_belongs(images):
    check_belongs(processor(**images), tiny_clip())


@pytest.mark.parametrize(
    ("images", "made"),
    [
        ({"size": {"shortest_edge": 224}, "crop_size": square(224)}, "224 x 224"),
        ({"size": {"shortest_edge": 8}, "crop_size": square(8)}, "8 x 8"),
        ({"size": square(12), "do_center_crop": False}, "12 x 12"),
        ({"crop_size": {"height": 16, "width": 20}}, "16 x 20"),
        ({"do_resize": False, "do_center_crop": False}, "34 x 34"),
    ],
)
def test_images_of_another_size_are_refused_with_both(images, made):
    with pytest.raises(TowerError, match=rf"images of {made} pixels.*takes images of 16 x 16"):
        check_belongs(processor(**images), tiny_clip())


@pytest.mark.parametrize(
    "images",
    [{"size": {"shortest_edge": 10**9}}, {"crop_size": square(10**6)}, {"image_std": [0, 1, 1]},
     {"image_mean": [float("nan")] * 3}, {"rescale_factor": float("inf")},
     {"size": {"shortest_edge": -16}}, {"image_mean": [0.5, 0.5]}],
)  # fmt: skip
def test_what_can_prepare_no_image_is_refused_in_one_line(images):
    with pytest.raises(TowerError, match="the image processor") as caught:
        check_belongs(processor(**images), tiny_clip())
    assert "\n" not in str(caught.value)


def test_a_tower_of_another_resolution_takes_its_own_processor_only():
    smaller = reduce(tiny_clip(), Reduction(image_size=8))
    sizes = {"size": {"shortest_edge": 8}, "crop_size": square(8)}
    check_belongs(processor(**sizes), smaller)
    with pytest.raises(TowerError, match="takes images of 8 x 8"):
        check_belongs(processor(), smaller)


def test_towers_of_several_resolutions_take_images_of_the_largest():
    shares = {"resolution_bounds": (0.5,), "resolution_shares": (0.5, 0.5)}
    check_belongs(processor(), reduce(tiny_clip(), Reduction(resolutions=(8, 16), **shares)))


def test_a_tokenizer_with_tokens_beyond_the_vocabulary_is_refused_with_both():
    own = tiny_processor()
    own.tokenizer.add_tokens(["beyond"])
    with pytest.raises(TowerError, match=r"up to number 20.*vocabulary has 20"):
        check_belongs(own, tiny_clip())
    check_belongs(own, tiny_clip(), texts=False)


def test_a_tokenizer_that_ends_texts_otherwise_is_refused():
    own = tiny_processor()
    own.tokenizer.eos_token = "red"
    with pytest.raises(TowerError, match="reads them at token 1"):
        check_belongs(own, tiny_clip())


def test_early_configurations_that_say_2_read_the_highest_token():
    model = tiny_clip()
    model.config.text_config.eos_token_id = 2
    with pytest.raises(TowerError, match="ends texts with token 1"):
        check_belongs(tiny_processor(), model)
    own = tiny_processor()
    own.tokenizer.eos_token = "and"  # the last word
    check_belongs(own, model)


def test_a_tokenizer_without_padding_is_refused():
    own = tiny_processor()
    own.tokenizer.pad_token = None
    with pytest.raises(TowerError, match="pad"):
        check_belongs(own, tiny_clip())


def test_towers_that_read_the_last_token_know_no_end():
    model = tiny_model("siglip")
    model.config.text_config.eos_token_id = 49407  # as published
    check_belongs(tiny_processor(), model)


def test_a_stage_checks_what_it_loads(clip_directory, tmp_path):
    shutil.copytree(clip_directory, tmp_path / "copy")
    tiny_processor(20).save_pretrained(tmp_path / "copy")
    with pytest.raises(TowerError, match="20 x 20"):
        Stage.load(tmp_path / "copy")


@pytest.mark.parametrize("name", ["processor_config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"{", b"\xff\xfe", b"[" * 99_999])
def test_a_malformed_file_is_one_line_that_names_it(clip_directory, tmp_path, name, content):
    shutil.copytree(clip_directory, tmp_path / "copy")
    (tmp_path / "copy" / name).write_bytes(content)
    with pytest.raises(TowerError, match=name) as caught:
        load_processor(tmp_path / "copy")
    assert "\n" not in str(caught.value)


def test_a_tokenizer_that_cannot_be_read_costs_texts_only_and_says_why(
    clip_directory, tmp_path, caplog
):
    shutil.copytree(clip_directory, tmp_path / "copy")
    (tmp_path / "copy" / "tokenizer.json").write_text("{}")
    stage = Stage.load(tmp_path / "copy")
    assert "texts can't be encoded" in caplog.text
    whole = Stage.load(clip_directory)
    assert stage.name == whole.name
    for read in (lambda: stage.encode_texts(["a"]), lambda: stage.text_name):
        with pytest.raises(TowerError, match="tokenizer can't be read"):
            read()
    lent = Stage.load(tmp_path / "copy", texts=whole)
    assert lent.text_name == whole.text_name


CODE = "import pathlib; pathlib.Path({!r}).touch()\nclass Evil: pass\n"
FILES = ("config.json", "processor_config.json", "tokenizer_config.json")
LOAD_ALL = """
import sys
from cascade import Stage
from pruning_mechanism import TowerError
for path in sys.argv[1:]:
    try:
        Stage.load(path).encode_texts(["red"])
        print("loaded")
    except TowerError as error:
        print(error)
"""


def write_evil(place: Path, original: Path, file: str, known: bool, marker: Path) -> Path:
    """A copy of a checkpoint in which a file names code; the types in it may be unknown."""
    copy = place / f"{file}-{known}"
    shutil.copytree(original, copy)
    (copy / "evil.py").write_text(CODE.format(str(marker)))
    content = json.loads((copy / file).read_text())
    kinds = ("AutoConfig", "AutoModel", "AutoProcessor", "AutoImageProcessor")
    code = {"auto_map": dict.fromkeys(kinds, "evil.Evil") | {"AutoTokenizer": ["evil.Evil"] * 2}}
    types = ("model_type", "processor_class", "tokenizer_class", "image_processor_type")
    for part in (content, content.setdefault("image_processor", {})):
        part |= code
        if not known:
            part |= {name: "Evil" for name in types if name in part}
    (copy / file).write_text(json.dumps(content))
    return copy


def test_code_beside_weights_is_neither_run_nor_asked_about(clip_directory, tmp_path):
    marker = tmp_path / "ran"
    cases = [(file, known) for file in FILES for known in (True, False)]
    copies = [write_evil(tmp_path, clip_directory, *case, marker) for case in cases]
    asked = python("-c", LOAD_ALL, *copies, input="y\n" * 99)
    assert not marker.exists()
    assert "[y/N]" not in asked.stdout + asked.stderr
    said = dict(zip(cases, asked.stdout.splitlines(), strict=True))
    assert all(said[file, True] == "loaded" for file in FILES)
    assert "needs code of its own" in said["config.json", False]


def test_results_of_this_project_name_code_and_load_without_it(tmp_path):
    smaller = reduce(tiny_clip(), Reduction(layers=2))
    smaller.save_pretrained(tmp_path)
    assert "auto_map" in json.loads((tmp_path / "config.json").read_text())
    assert type(load(tmp_path)) is type(smaller)
