"""A corpus that is large enough to train on, and results to heal."""

import pytest

from pruning_mechanism import Mask, Reduction, load, load_processor, prune, reduce, save
from tests.conftest import write_folder


@pytest.fixture(scope="session")
def hundred(tmp_path_factory):
    """A corpus of 100 training images."""
    root = tmp_path_factory.mktemp("hundred")
    write_folder(root, "train", 100, 0)
    return root


@pytest.fixture(scope="session")
def damaged(clip_directory, tmp_path_factory):
    """A result that has much to learn: half of its neurons are gone, and a layer."""
    place = tmp_path_factory.mktemp("damaged") / "tower"
    model = load(clip_directory)
    mask = Mask.dense(model.config)
    mask.neurons[:, ::2] = False
    made = reduce(prune(model, mask), Reduction(layers=2))
    save(made, place, load_processor(clip_directory))
    return place
