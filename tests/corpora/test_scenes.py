"""Scenes: what a caption says is true, and a scene never changes and never repeats."""

import itertools
import re
from collections import Counter

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpora import scenes
from corpora.generating.layout import BACKGROUNDS, COLOURS, PLACES, SHAPES, SIZES, TEXTURES
from corpora.generating.wording import NUMBERS, PLURALS, SETTINGS
from corpora.scenes import captions, load_scenes, render, scene

any_scene = st.builds(scene, st.integers(0, 3), st.integers(0, 10**6))

COLOUR, SHAPE, TEXTURE, SIZE = ("|".join(words) for words in (COLOURS, SHAPES, TEXTURES, SIZES))
WHERE = "at the (?:top|bottom) (?:left|right)|at the (?:top|bottom|left|right)|in the middle"
COUNTED = {
    f"{number} {PLURALS.get(shape, shape + 's')}": (shape, n)
    for n, number in NUMBERS.items()
    for shape in SHAPES
}
COUNTED |= {f"{'an' if shape[0] in 'aeiou' else 'a'} {shape}": (shape, 1) for shape in SHAPES}


def the_one(drawn, colour):
    """The thing of that colour, of which there must be exactly one."""
    (thing,) = [thing for thing in drawn.things if thing.colour == colour]
    return thing


def split_off_setting(drawn, caption):
    setting = SETTINGS[drawn.background]
    assert setting in caption
    return caption.replace(setting, "").strip()


def place_of(words):
    return "middle" if words == "in the middle" else words.removeprefix("at the ")


@given(any_scene)
def test_a_scene_has_two_to_five_things_of_different_colours_in_different_places(drawn):
    assert 2 <= len(drawn.things) <= 5
    assert len({thing.colour for thing in drawn.things}) == len(drawn.things)
    assert len({thing.place for thing in drawn.things}) == len(drawn.things)


@given(any_scene)
def test_a_thing_stands_where_its_place_says(drawn):
    for thing in drawn.things:
        row, column = divmod(PLACES.index(thing.place), 3)
        assert (int(thing.y * 3), int(thing.x * 3)) == (row, column)


@given(any_scene)
def test_sizes_differ_visibly(drawn):
    for one, other in itertools.permutations(drawn.things, 2):
        if SIZES[one.size] < SIZES[other.size]:
            assert one.radius * 1.2 < other.radius


@given(any_scene)
def test_no_thing_has_a_colour_that_its_background_hides(drawn):
    assert not {thing.colour for thing in drawn.things} & set(BACKGROUNDS[drawn.background])


@given(any_scene)
def test_five_different_captions_name_the_background_and_two_colours(drawn):
    said = captions(drawn)
    assert len(set(said)) == 5
    for caption in said:
        rest = split_off_setting(drawn, caption)
        assert len(set(re.findall(rf"\b(?:{COLOUR})\b", rest))) >= 2


@given(any_scene)
def test_the_listing_names_every_thing_once(drawn):
    rest = split_off_setting(drawn, captions(drawn)[0])
    said = re.findall(rf"\ban? ({COLOUR}) ({SHAPE})\b", rest)
    assert sorted(said) == sorted((thing.colour, thing.shape) for thing in drawn.things)


@given(any_scene)
def test_the_placing_describes_two_things_fully(drawn):
    rest = split_off_setting(drawn, captions(drawn)[1])
    said = re.findall(rf"\ban? ({SIZE}) ({TEXTURE}) ({COLOUR}) ({SHAPE}) ({WHERE})", rest)
    assert len(said) == 2
    for size, texture, colour, shape, where in said:
        thing = the_one(drawn, colour)
        found = (thing.size, thing.texture, thing.shape, thing.place)
        assert (size, texture, shape, place_of(where)) == found


@given(any_scene)
def test_the_relation_holds_with_a_margin(drawn):
    rest = split_off_setting(drawn, captions(drawn)[2])
    thing = rf"the ({TEXTURE}) ({COLOUR}) ({SHAPE})"
    said = re.fullmatch(rf"{thing} is (.+?) {thing}", rest).groups()
    one, other = the_one(drawn, said[1]), the_one(drawn, said[5])
    assert (one.texture, one.shape) == (said[0], said[2])
    assert (other.texture, other.shape) == (said[4], said[6])
    right, down = one.x - other.x, one.y - other.y
    along = {
        "left of": [-right],
        "right of": [right],
        "above": [-down],
        "below": [down],
        "above and left of": [-down, -right],
        "above and right of": [-down, right],
        "below and left of": [down, -right],
        "below and right of": [down, right],
    }[said[3]]
    assert min(along) >= 0.2
    if len(along) == 1:  # not on a diagonal
        assert along[0] > 1.5 * min(abs(right), abs(down))


@given(any_scene)
def test_counts_and_colours_match(drawn):
    rest = split_off_setting(drawn, captions(drawn)[3])
    total, groups, colours = re.fullmatch(r"(\w+) shapes ?, (.+), coloured (.+)", rest).groups()
    assert total == NUMBERS[len(drawn.things)]
    shapes = Counter(dict(COUNTED[group] for group in re.split(r", | and ", groups)))
    assert shapes == Counter(thing.shape for thing in drawn.things)
    assert sorted(re.split(r", | and ", colours)) == sorted(t.colour for t in drawn.things)


@given(any_scene)
def test_the_comparison_of_sizes_is_true(drawn):
    rest = split_off_setting(drawn, captions(drawn)[4])
    thing = rf"the ({COLOUR}) ({SHAPE}) ({WHERE})"
    said = re.fullmatch(rf"{thing} is (bigger than|smaller than|as big as) {thing}", rest).groups()
    one, other = the_one(drawn, said[0]), the_one(drawn, said[4])
    assert (one.shape, one.place) == (said[1], place_of(said[2]))
    assert (other.shape, other.place) == (said[5], place_of(said[6]))
    sizes = list(SIZES)
    difference = sizes.index(one.size) - sizes.index(other.size)
    words = "as big as" if difference == 0 else "bigger than" if difference > 0 else "smaller than"
    assert said[3] == words


@given(any_scene, st.sampled_from([32, 64, 128, 200]))
def test_an_image_is_rgb_of_the_size_asked_for(drawn, size):
    image = render(drawn, size)
    assert (image.mode, image.size) == ("RGB", (size, size))


def test_the_same_seed_and_index_give_the_same_image_and_captions():
    one, other = scene(5, 17), scene(5, 17)
    assert one == other
    assert captions(one) == captions(other)
    assert render(one).tobytes() == render(other).tobytes()


def test_scenes_stay_as_they_are_across_versions():
    """The shipped checkpoint was trained on these very scenes: a change here is a new corpus."""
    drawn = scene(scenes.SEEDS["validation"], 0)
    assert (
        captions(drawn)[0] == "a purple ring, a yellow heart and a white circle in a starry night"
    )
    assert drawn.things[0].x == pytest.approx(0.7873754033635169, abs=1e-12)


def test_another_size_shows_the_same_scene():
    drawn = scene(5, 18)
    small, large = render(drawn, 64), render(drawn, 128).reduce(2)
    differences = [abs(a - b) for a, b in zip(small.tobytes(), large.tobytes(), strict=True)]
    assert sum(differences) / len(differences) < 8


def test_training_and_validation_share_no_scene():
    def content(seed, index):
        drawn = scene(seed, index)
        return drawn.background, drawn.things

    train, validation = (scenes.SEEDS[split] for split in ("train", "validation"))
    assert train != validation
    assert not {content(train, i) for i in range(2000)} & {
        content(validation, i) for i in range(500)
    }


def test_every_attribute_comes_up_about_equally_often():
    drawn = [scene(9, i) for i in range(2000)]
    things = [thing for one in drawn for thing in one.things]
    for values, seen in (
        (BACKGROUNDS, [one.background for one in drawn]),
        (SHAPES, [thing.shape for thing in things]),
        (TEXTURES, [thing.texture for thing in things]),
        (SIZES, [thing.size for thing in things]),
        (PLACES, [thing.place for thing in things]),
        (COLOURS, [thing.colour for thing in things]),
        (range(2, 6), [len(one.things) for one in drawn]),
    ):
        counts = Counter(seen)
        assert set(counts) == set(values)
        even = len(seen) / len(values)
        assert all(0.7 * even < n < 1.3 * even for n in counts.values())


def test_a_caption_is_true_of_few_scenes():
    """Else recall would have a low ceiling: hardly two of 1,000 scenes share a caption."""
    said = Counter(caption for i in range(1000) for caption in set(captions(scene(9, i))))
    assert sum(n for n in said.values() if n > 1) < 0.02 * sum(said.values())


def test_load_scenes_gives_a_data_set_like_any_other_corpus(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    corpus = load_scenes("validation", 6)
    assert corpus.column_names == ["image", "captions", "key"]
    row = corpus[3]
    drawn = scene(scenes.SEEDS["validation"], 3)
    assert row["key"] == "scenes/validation/000003"
    assert row["captions"] == captions(drawn)
    assert row["image"].tobytes() == render(drawn).tobytes()
    assert capfd.readouterr().err == ""


def test_load_scenes_renders_a_split_only_once(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    load_scenes("validation", 3)
    monkeypatch.setattr(scenes, "render", None)  # a second rendering would now fail
    assert len(load_scenes("validation", 3)) == 3


@pytest.mark.parametrize("arguments", [("test",), ("validation", 0)])
def test_what_load_scenes_does_not_have_is_said_in_one_line(arguments):
    with pytest.raises(ValueError, match=r"^scenes[^\n]+$"):
        load_scenes(*arguments)
