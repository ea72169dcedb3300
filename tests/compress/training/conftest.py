"""A result that has much to learn."""

import pytest

from pruning_mechanism import Mask, Reduction, load, load_processor, prune, reduce, save


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
