"""Data sets by name: their classes and templates fit, or one line says why not."""

import importlib.util
import json
import sys

import datasets
import pytest
import torch
from PIL import Image

from compress.errors import UserError
from corpora import CorpusError
from corpora.generating.wording import SETTINGS, captions
from corpora.labelled import Columns
from corpora.scenes import SEEDS, scene
from evaluation.classifying.catalogue import KNOWN
from evaluation.classifying.data_sets import Wanted, drawn, open_data_sets
from evaluation.classifying.packages import imagenet_names
from evaluation.classifying.published_names import CIFAR10, CIFAR100, IMAGENETTE, in_words
from evaluation.classifying.scenes import largest_thing, scene_tasks
from evaluation.classifying.tasks import Task, alike, distinct
from evaluation.classifying.templates import CIFAR, TEMPLATES, checked, templates_of


@pytest.fixture
def class_folder(tmp_path):
    """Make a folder with a directory of images for each class."""

    def made(*classes: str, images: int = 2):
        for number, name in enumerate(classes):
            place = tmp_path / "data" / "val" / name
            place.mkdir(parents=True)
            for image in range(images):
                Image.new("RGB", (8, 8), (30 * number, 40 * image, 9)).save(place / f"{image}.png")
        return tmp_path / "data"

    return made


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Packages that carry names and templates, in the form of open_clip and clip-benchmark."""
    place = tmp_path / "site"
    for name in ("open_clip", "clip_benchmark/datasets"):
        (place / name).mkdir(parents=True)
    for name in ("open_clip", "clip_benchmark"):
        (place / name / "__init__.py").write_text("raise ImportError('needs all of timm')")
    (place / "open_clip" / "zero_shot_metadata.py").write_text(
        "OPENAI_IMAGENET_TEMPLATES = (lambda c: f'itap of a {c}.', lambda c: f'art of {c}.')\n"
        "SIMPLE_IMAGENET_TEMPLATES = (lambda c: f'a {c}.',)\n"
        "IMAGENET_CLASSNAMES = ['tench', 'missile', 'missile']\n"
    )
    names = {"caltech101_vtab": ["accordion", "airplane", "background"], "imagenet1k": ["tench"]}
    templates = {"caltech101": ["a toy {c}."], "imagenet1k": ["one {c}."]}
    folder = place / "clip_benchmark" / "datasets"
    (folder / "en_classnames.json").write_text(json.dumps(names))
    (folder / "en_zeroshot_classification_templates.json").write_text(json.dumps(templates))
    monkeypatch.syspath_prepend(place)
    for name in ("open_clip", "clip_benchmark"):  # the real ones, if something has imported them
        monkeypatch.delitem(sys.modules, name, raising=False)
    return place


def first_names(task: Task) -> list[str]:
    return [names[0] for names in task.classes]


# -- folders and named data sets


def test_published_names_become_words(class_folder):
    place = class_folder("001.ak47", "002.american-flag", "aquarium_fish")
    (found,) = open_data_sets([f"folder:{place}"], Wanted())
    (task,) = found.tasks
    assert first_names(task) == ["ak47", "american flag", "aquarium fish"]
    assert task.templates == ("a photo of a {}.",)
    assert (found.name, task.name, found.split) == ("folder:data", "folder:data", "validation")
    assert task.images_of_each() == [2, 2, 2]


@pytest.mark.parametrize(
    ("published", "words"),
    [("7-up", "7 up"), ("t-shirt", "t shirt"), ("3D printer", "3D printer"), ("_", "_"),
     ("257.clutter", "clutter"), ("golden-gate-bridge", "golden gate bridge"), ("42", "42")],
)  # fmt: skip
def test_a_name_is_never_lost_on_the_way_to_words(published, words):
    assert in_words(published) == words


def test_a_local_copy_of_cifar_in_the_hubs_layout_has_our_names_and_templates(tmp_path):
    kind = datasets.ClassLabel(names=[name.replace(" ", "_") for name in CIFAR100])
    features = datasets.Features({"img": datasets.Image(), "fine_label": kind})
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    content = {"bytes": (tmp_path / "a.png").read_bytes(), "path": None}
    rows = {"img": [content] * 3, "fine_label": [99, 1, 0]}
    (tmp_path / "c").mkdir()
    datasets.Dataset.from_dict(rows, features=features).to_parquet(
        tmp_path / "c" / "test-00000-of-00001.parquet"
    )
    (found,) = open_data_sets([f"cifar100:{tmp_path / 'c'}"], Wanted())
    (task,) = found.tasks
    assert first_names(task) == list(CIFAR100)
    assert task.labels.tolist() == [99, 1, 0]
    assert (task.templates, found.split, task.name) == (CIFAR, "test", "cifar100:c")
    assert KNOWN["cifar100"].columns == Columns("img", "fine_label")


def test_names_written_here_are_those_of_the_data_sets():
    assert (len(set(CIFAR10)), len(set(CIFAR100)), len(set(IMAGENETTE.values()))) == (10, 100, 10)
    assert list(CIFAR100) == sorted(CIFAR100)
    assert list(CIFAR10) == sorted(CIFAR10)
    assert list(IMAGENETTE) == sorted(IMAGENETTE)
    assert len(set(CIFAR)) == 18
    assert {"a photo of a {}.", "a bad photo of the {}.", "a photo of the small {}."} < set(CIFAR)


def test_imagenettes_directories_are_wordnets_numbers(class_folder, packages):
    place = class_folder("n03888257", "n01440764")
    (found,) = open_data_sets([f"imagenette:{place}"], Wanted())
    (task,) = found.tasks
    assert first_names(task) == ["tench", "parachute"]
    assert task.templates == ("itap of a {}.", "art of {}.")


def test_caltech_101_has_clip_benchmarks_names_in_whatever_order_it_comes(class_folder, packages):
    (found,) = open_data_sets([f"caltech101:{class_folder('airplanes', 'Accordion')}"], Wanted())
    (task,) = found.tasks
    assert first_names(task) == ["accordion", "airplane"]
    assert task.templates == ("a toy {c}.",)


def test_classes_that_a_package_gives_one_name_are_noted(class_folder, packages):
    (found,) = open_data_sets([f"imagenet1k:{class_folder('n1', 'n2', 'n3')}"], Wanted())
    assert first_names(found.tasks[0]) == ["tench", "missile", "missile"]
    assert found.notes == (
        "imagenet1k:data: classes share their names, so no text tells them apart: missile; their "
        "images count as wrong at top 1",
    )


def test_the_real_packages_carry_what_is_read_of_them():
    if not all(map(importlib.util.find_spec, ("open_clip", "clip_benchmark"))):
        pytest.skip("open_clip_torch and clip-benchmark aren't installed")
    assert (len(imagenet_names()), len(templates_of("imagenet"))) == (1000, 80)
    assert (len(templates_of("imagenet-simple")), len(templates_of("caltech101"))) == (7, 34)
    for name in TEMPLATES:
        assert checked(templates_of(name), name) == templates_of(name)


def test_without_the_package_one_line_says_how_to_install_it(class_folder, monkeypatch):
    place = class_folder("n03888257", "n01440764")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name, package in (("imagenette", "open_clip_torch"), ("imagenet1k", "open_clip_torch"),
                          ("caltech101", "clip-benchmark")):  # fmt: skip
        with pytest.raises(UserError, match=f"pip install {package}, or pass --classes FILE"):
            open_data_sets([f"{name}:{place}"], Wanted())
    (found,) = open_data_sets([f"imagenette:{place}"], Wanted(templates="photo"))
    assert found.tasks[0].templates == ("a photo of a {}.",)


# -- classes and templates of the user's


def test_a_users_names_and_templates_go_first(class_folder, tmp_path):
    (tmp_path / "names.json").write_text('{"cat": ["cat", "kitty"], "dog": "dog"}')
    (tmp_path / "templates.txt").write_text("a {} here\n\nthe {c}\n")
    wanted = Wanted(classes=tmp_path / "names.json", templates=str(tmp_path / "templates.txt"))
    (found,) = open_data_sets([f"folder:{class_folder('cat', 'dog')}"], wanted)
    assert found.tasks[0].classes == (("cat", "kitty"), ("dog",))
    assert found.tasks[0].templates == ("a {} here", "the {c}")


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ("cat", "1 class names, but the data set has 2 classes"),
        ("cat\ndog\nemu", "3 class names, but the data set has 2 classes"),
        ("cat\nCat", "classes share their names, so no text tells them apart: cat, Cat"),
        ("", "holds no class names"),
    ],
)
def test_names_that_do_not_fit_are_refused(class_folder, tmp_path, names, reason):
    (tmp_path / "names.txt").write_text(names)
    with pytest.raises((UserError, CorpusError), match=reason):
        open_data_sets(
            [f"folder:{class_folder('cat', 'dog')}"], Wanted(classes=tmp_path / "names.txt")
        )


def test_a_label_beyond_the_names_is_refused(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "label": 2}')
    with pytest.raises(UserError, match="nothing says what they mean: pass --classes FILE"):
        open_data_sets([f"folder:{tmp_path}"], Wanted())
    (tmp_path / "classes.json").write_text('{"names": [["cat"], ["dog"]]}')
    with pytest.raises(UserError, match="has the label 2, but there are 2 class names"):
        open_data_sets([f"folder:{tmp_path}"], Wanted())


def test_one_class_is_no_choice(class_folder):
    with pytest.raises(UserError, match="nothing to choose between"):
        open_data_sets([f"folder:{class_folder('cat')}"], Wanted())


@pytest.mark.filterwarnings("ignore::corpora.CorpusWarning")
def test_images_that_cannot_be_read_are_named_and_none_left_is_refused(class_folder):
    place = class_folder("cat", "dog")
    (place / "val" / "cat" / "1.png").write_bytes(b"broken")
    (found,) = open_data_sets([f"folder:{place}"], Wanted())
    assert found.skipped == ("val/cat/1.png",)
    assert found.tasks[0].labels.tolist() == [0, 1, 1]
    for file in place.rglob("*.png"):
        file.write_bytes(b"broken")
    with pytest.raises(UserError, match="none of its 4 images can be read"):
        open_data_sets([f"folder:{place}"], Wanted())


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("cifar", "no data set is called 'cifar'; choose scenes, cifar10, cifar100,"),
        ("folder", "no data set is called 'folder'"),
        ("./here", "no data set is called './here'; .* folder:DIR"),
        ("folder:/nowhere", "no such directory"),
        ("cifar10:/nowhere", "no such directory"),
        ("natural-images", "fetch it from https://www.kaggle.com/.* and pass natural-images:DIR"),
    ],
)
def test_unknown_data_sets_are_refused(name, reason):
    with pytest.raises((UserError, CorpusError), match=reason):
        open_data_sets([name], Wanted())


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("t.txt", "a photo", "'a photo' has no place for the name of a class: write {c} or {}"),
        ("t.txt", "a {name}", "has no place for the name"),
        ("t.txt", "\n\n", "holds no template"),
        ("t.json", "[]", "holds no template"),
        ("t.json", '["a {}", ""]', "template 2 is empty"),
        ("t.json", '["a {}", 3]', "template 2 is empty"),
        ("t.json", '{"a": 1}', "holds a dict, not a list"),
        ("t.json", "[", "not JSON"),
    ],
)
def test_templates_that_cannot_hold_a_name_are_refused(tmp_path, name, content, reason):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=reason):
        templates_of(str(tmp_path / name))


def test_a_set_of_templates_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="name a file, or one of photo, cifar, imagenet"):
        templates_of("imagenet-full")
    (tmp_path / "t.txt").write_bytes(b"\xff{}")
    with pytest.raises(UserError, match="not UTF-8"):
        templates_of(str(tmp_path / "t.txt"))


# -- several at once


def test_names_tell_data_sets_apart(class_folder):
    place = class_folder("cat", "dog")
    names = [f"folder:{place}", f"folder:{place}/val", f"folder:{place}/../data", f"folder:{place}"]
    found = open_data_sets(names, Wanted())
    assert [data.name for data in found] == ["folder:data", "folder:val", "folder:data (2)"]
    assert distinct(["a", "b", "a"]) == ["a", "b", "a (2)"]


def test_fewer_images_are_drawn_by_the_seed_and_keep_their_order():
    some = drawn(Wanted(images=10, seed=1), 100)
    assert some == sorted(set(some))
    assert len(some) == 10
    assert some == drawn(Wanted(images=10, seed=1), 100)
    assert some != drawn(Wanted(images=10, seed=2), 100)
    assert list(drawn(Wanted(images=10), 5)) == [0, 1, 2, 3, 4]


def test_only_whole_sets_of_names_make_classes_alike():
    assert alike((("cat", "kitty"), ("Kitty", "cat"), ("cat",))) == ["cat / kitty", "Kitty / cat"]
    assert alike((("crane", "bird"), ("crane", "machine"))) == []


# -- scenes


def test_scenes_are_labelled_by_what_the_generator_drew():
    places = [0, 3, 4, 8, 11]
    found = scene_tasks("scenes", "test", lambda images: places)
    assert (found.split, len(found.images)) == ("validation", 5)
    assert found.images["key"][:] == [f"scenes/validation/{place:06d}" for place in places]
    what, colour, background = found.tasks
    for task in found.tasks:
        for row, label in zip(task.rows.tolist(), task.labels.tolist(), strict=True):
            drawn = scene(SEEDS["validation"], places[row])
            (name,) = task.classes[label]
            largest = max(drawn.things, key=lambda thing: thing.radius)
            if task is what:
                assert name == f"{largest.colour} {largest.shape}"
            elif task is colour:
                assert name == largest.colour
            else:
                assert name == SETTINGS[drawn.background]
    assert torch.equal(what.rows, colour.rows)
    assert background.rows.tolist() == [0, 1, 2, 3, 4]


def test_the_largest_thing_is_larger_by_its_size_or_there_is_none():
    for index in range(60):
        drawn = scene(5, index)
        sizes = sorted((thing.radius, thing.size) for thing in drawn.things)
        found = largest_thing(drawn)
        assert (found is None) == (sizes[-1][1] == sizes[-2][1])
        assert found is None or found.radius == sizes[-1][0]


def test_scene_templates_are_words_that_captions_say():
    said = {word for i in range(300) for text in captions(scene(1, i)) for word in text.split()}
    said = {word.strip(",") for word in said}
    for task in scene_tasks("scenes", "validation", lambda images: [0, 3, 4]).tasks:
        words = {word for text in task.templates for word in text.replace("{}", "").split()}
        words |= {word for names in task.classes for name in names for word in name.split()}
        assert words <= said
