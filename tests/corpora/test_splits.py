import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpora.splits import HELD_OUT, hashed, split_name
from tests.lanes import examples

keys_of_images = st.lists(st.text(min_size=1, max_size=8), unique=True, max_size=60)


@settings(max_examples=examples(16, 50), deadline=None)
@given(keys_of_images)
def test_every_image_is_on_exactly_one_side(keys):
    train, validation = hashed(keys, "train"), hashed(keys, "validation")
    assert sorted(train + validation) == sorted(keys)
    assert hashed(keys, "test") == validation


@settings(max_examples=examples(16, 50), deadline=None)
@given(keys_of_images.filter(lambda keys: len(keys) > 1), st.randoms())
def test_the_order_of_the_list_decides_nothing(keys, random):
    shuffled = random.sample(keys, len(keys))
    assert set(hashed(shuffled, "validation")) == set(hashed(keys, "validation"))


def test_a_fifth_but_never_more_than_a_thousand_is_held_out():
    for images, held_out in ((2, 1), (50, 10), (4000, 800), (31783, HELD_OUT)):
        assert len(hashed(map(str, range(images)), "validation")) == held_out


def test_a_key_that_comes_twice_counts_once():
    once = [str(n) for n in range(20)]
    assert hashed(once * 3, "validation") == hashed(once, "validation")


def test_the_split_is_the_same_on_every_machine_and_forever():
    assert hashed([f"{n}.jpg" for n in range(15)], "validation") == [
        "0.jpg",
        "5.jpg",
        "14.jpg",
    ]


@pytest.mark.parametrize(
    ("published", "ours"),
    [
        ("restval", "train"),
        ("val2017", "validation"),
        ("dev", "validation"),
        ("Test", "test"),
        ("test_1000", "test"),
        ("train_old", None),
        ("extra", None),
        (None, None),
    ],
)
def test_publishers_names_are_understood(published, ours):
    assert split_name(published) == ours
