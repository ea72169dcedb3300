"""A learner: what its losses are, what it keeps, and that it sees images of any side."""

import math

import pytest
import torch

from demo.batches import Batch
from demo.learner import Learner, Rates, contrastive_loss, recipe_kept, recognition_loss
from demo.network import VISION, build_processor, embed_texts

RATES = Rates(muon=0.02, adam=1e-3, weight_decay=0.05, phrases=0.5)
TEXTS = ["a red star on sand", "a blue ring on snow", "a large green heart at the top left"]


@pytest.fixture(scope="module")
def processor():
    return build_processor(TEXTS * 3)


@pytest.fixture(autouse=True)
def shallow(monkeypatch):
    """Two layers instead of twelve: all are alike."""
    monkeypatch.setitem(VISION, "num_hidden_layers", 2)


@pytest.fixture
def learner(processor):
    torch.manual_seed(0)
    return Learner(processor, phrases=7, rates=RATES, device="cpu")


def a_batch(processor, side=32, seed=0):
    dice = torch.Generator().manual_seed(seed)
    tokens = processor.tokenizer(TEXTS * 2, padding=True, return_tensors="pt")["input_ids"]
    return Batch(
        torch.randint(0, 256, (3, side, side, 3), dtype=torch.uint8, generator=dice),
        tokens.view(3, 2, -1),
        torch.randint(0, 2, (3, 7), generator=dice).float(),
    )


def weights(learner):
    return {name: p.detach().clone() for name, p in learner.parameters.items()}


def test_the_contrastive_loss_is_that_of_clip_for_one_caption_an_image():
    torch.manual_seed(0)
    images, texts = torch.randn(5, 4), torch.randn(5, 1, 4)
    logits = 3 * images @ texts[:, 0].T
    rows, columns = logits.log_softmax(1).diagonal(), logits.log_softmax(0).diagonal()
    loss = contrastive_loss(images, texts, torch.tensor(3.0))
    assert torch.isclose(loss, -(rows.mean() + columns.mean()) / 2)


def test_several_captions_cost_the_mean_of_each_alone():
    torch.manual_seed(0)
    images, texts, scale = torch.randn(5, 4), torch.randn(5, 3, 4), torch.tensor(2.0)
    alone = [contrastive_loss(images, texts[:, i : i + 1], scale) for i in range(3)]
    assert torch.isclose(contrastive_loss(images, texts, scale), torch.stack(alone).mean())


def test_recognising_costs_most_where_the_wrong_phrases_are_believed():
    said = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    right, wrong = torch.tensor([[20.0, 20.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, 20.0, 20.0]])
    assert torch.isclose(recognition_loss(right, said), torch.tensor(math.log(2)))
    assert recognition_loss(wrong, said) > 20


def test_learning_one_batch_by_heart_lowers_both_losses(learner, processor):
    batch = a_batch(processor)
    first = learner.step(batch, pace=0.2)
    for _ in range(8):
        last = learner.step(batch, pace=0.2)
    assert last.contrastive < 0.8 * first.contrastive
    assert last.phrases < first.phrases


def test_going_on_from_a_kept_state_is_as_if_never_interrupted(learner, processor, tmp_path):
    kept = tmp_path / "state.safetensors"
    learner.step(a_batch(processor, seed=1), pace=1)
    learner.save(kept, {"seed": "0"})
    torch.manual_seed(1)  # another initialisation, so that everything must come from the file
    resumed = Learner(processor, phrases=7, rates=RATES, device="cpu")
    resumed.restore(kept)
    for one in (learner, resumed):
        one.step(a_batch(processor, seed=2), pace=1)
    assert resumed.steps == learner.steps == 2
    assert recipe_kept(kept) == {"seed": "0"}
    for name, value in weights(learner).items():
        assert torch.equal(value, weights(resumed)[name]), name


def test_every_parameter_learns(learner, processor):
    before = weights(learner)
    for _ in range(2):
        learner.step(a_batch(processor, side=128), pace=1)
    still = {name for name, value in weights(learner).items() if torch.equal(value, before[name])}
    unused = {"model.text_model.embeddings.position_embedding.weight"}
    assert still <= unused


def test_embedding_a_caption_does_not_depend_on_its_neighbours(learner, processor):
    learner.model.eval()
    together = processor.tokenizer(TEXTS, padding=True, return_tensors="pt")["input_ids"]
    embedded = embed_texts(learner.model, together)
    for text, row in zip(TEXTS, embedded, strict=True):
        alone = processor.tokenizer([text], return_tensors="pt")["input_ids"]
        assert torch.allclose(embed_texts(learner.model, alone)[0], row, atol=1e-5)


def test_similarities_are_what_the_model_gives_through_its_processor(learner, processor):
    pixels = a_batch(processor, side=128).pixels
    inputs = processor(images=list(pixels.numpy()), text=TEXTS, padding=True, return_tensors="pt")
    learner.model.eval()
    with torch.inference_mode():
        expected = learner.model(**inputs).logits_per_text / learner.model.logit_scale.exp()
    found = learner.similarities(pixels.split(2), TEXTS, at_once=2)
    assert torch.allclose(found, expected, atol=1e-4)
