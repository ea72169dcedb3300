"""What is timed as a stage's encoder alone is all that it does but opening and preparing."""

import pytest
import torch
from PIL import Image

from cascade import ResumedStage, Stage
from cascade.collecting.recalling import recalled, recorded
from cascade.stages.mapped import Map, MappedStage
from cascade.stages.towers import Towers
from evaluation.measuring.encoders import encoder_alone, running_of
from evaluation.measuring.values import Running
from pruning_mechanism import Reduction, reduce
from tests.cascade.known import Known
from tests.conftest import tiny_clip, tiny_processor


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    root = tmp_path_factory.mktemp("encoders")
    full = tiny_clip(num_hidden_layers=4)
    for name, model in {"full": full, "early": reduce(full, Reduction(layers=2))}.items():
        model.save_pretrained(root / name)
        tiny_processor().save_pretrained(root / name)
    return root


@pytest.fixture(scope="module")
def stage(places):
    return Stage.load(places / "full", batch_size=2)


@pytest.fixture(scope="module")
def pictures():
    noise = torch.randint(
        0, 256, (3, 40, 50, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    return [Image.fromarray(each.numpy()) for each in noise]


def mapped(stage, places):
    weight = torch.randn(stage.dimension, 5, generator=torch.Generator().manual_seed(0))
    return MappedStage(stage, Map(weight, torch.zeros(5)), stage)


def resumed(stage, places):
    return ResumedStage(stage, Stage.load(places / "early", batch_size=2))


def again(stage, places):
    return recalled([recorded(stage)], places, Towers(batch_size=2))[0]


@pytest.mark.parametrize("kind", [lambda stage, _: stage, mapped, resumed, again])
def test_it_gives_what_the_stage_gives_and_opens_nothing_any_more(kind, stage, places, pictures):
    encoder = kind(stage, places)
    wanted = encoder.encode_images(pictures)
    images = list(pictures)
    alone = encoder_alone(encoder, images)
    images.clear()
    torch.testing.assert_close(alone(), wanted, atol=1e-5, rtol=0)


def test_how_a_stage_runs_is_said_through_maps_and_recalling(stage, places):
    thumbnails = Stage.load(places / "full", reads="thumbnail", dtype="float32")
    wanted = Running("thumbnail", "torch", "float32")
    assert running_of(thumbnails) == running_of(again(thumbnails, places)) == wanted
    assert running_of(mapped(stage, places)) == Running("full", "torch", "float32")
    assert running_of(resumed(stage, places)) == Running("full", "torch", "float32")
    assert str(wanted) == "reads thumbnail, torch float32"


def test_of_what_is_no_checkpoint_nothing_is_known():
    assert encoder_alone(Known(0), [1, 2]) is None
    assert running_of(Known(0)) is None
