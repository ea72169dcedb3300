"""Results travel between processes as other models do."""

import copy
import io
import pickle

import cloudpickle
import pytest
import torch

from cascade import Stage
from pruning_mechanism import image_embeddings, prune, reduce
from pruning_mechanism.modeling.pruned_layers import PrunedMLP, mixed
from tests.conftest import tiny_clip, tiny_processor
from tests.fresh import FORKS
from tests.lanes import sweep
from tests.pruning_mechanism.conftest import FAMILIES, random_slim_mask, tiny_model
from tests.pruning_mechanism.test_reduction import (
    PIXELS,
    SOMETHING,
    chain,
    pixels_of,
    pruned,
)

RESULTS = {
    "pruned": pruned,
    "chain": chain,
    **{name: lambda name=name: reduce(pruned(), SOMETHING[name]) for name in SOMETHING},
}
ROUNDS = {
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "oldest pickle": lambda model: pickle.loads(pickle.dumps(model, protocol=0)),
    "cloudpickle": lambda model: pickle.loads(cloudpickle.dumps(model)),
    "deepcopy": copy.deepcopy,
    "torch": lambda model: through_torch(model),
}


def through_torch(model):
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@torch.no_grad()
def same(found, expected, pixels=PIXELS):
    assert type(found) is type(expected)
    kinds = [list(map(type, model.modules())) for model in (found, expected)]
    assert kinds[0] == kinds[1]
    assert torch.equal(image_embeddings(found, pixels), image_embeddings(expected, pixels))


@pytest.mark.parametrize("way", sweep(ROUNDS, ("oldest pickle", "cloudpickle", "torch")))
def test_a_chain_of_rules_comes_back_the_same(way):
    same(ROUNDS[way](chain()), chain())


@pytest.mark.parametrize(
    "name", sweep(RESULTS, ("pruned", "saliency", "learned", "resolutions", "patch size"))
)
def test_every_result_is_pickled(name):
    same(pickle.loads(pickle.dumps(RESULTS[name]())), RESULTS[name](), pixels_of(name))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_pickled(family):
    model = prune(tiny_model(family), random_slim_mask(9))
    same(pickle.loads(pickle.dumps(model)), model)


def test_a_class_made_of_a_mixed_one_is_not_taken_for_it():
    class Own(mixed(PrunedMLP, type(tiny_clip().vision_model.encoder.layers[0].mlp))):
        pass

    with pytest.raises((pickle.PicklingError, AttributeError), match="Own"):
        pickle.dumps(Own.__new__(Own))


def encoded(stage: Stage, images: list) -> list:
    return stage.encode_images(images).tolist()


@pytest.mark.parametrize("make", sweep([tiny_clip, chain], [chain]))
def test_a_stage_works_in_a_process_that_has_imported_nothing(make):
    from PIL import Image

    stage = Stage(make(), tiny_processor())
    images = [Image.new("RGB", (20, 24), colour) for colour in ("red", "blue")]
    expected = encoded(stage, images)
    stage.encode_texts(["a red square"])
    with FORKS.Pool(1) as pool:
        found = pool.apply(encoded, (stage, images))
    assert torch.equal(torch.tensor(found), torch.tensor(expected))
    assert pickle.loads(pickle.dumps(stage)).name == stage.name
