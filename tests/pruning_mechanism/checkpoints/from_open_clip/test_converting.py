"""Models of open_clip answer as open_clip does, once they are Hugging Face directories."""

from pathlib import Path

import open_clip
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModel, CLIPModel, MetaClip2Model, SiglipModel

from cascade import Cascade, Stage
from compress import align, fisher, recover
from compress.choices import Checkpoints, Sampling
from compress.command import run_command
from compress.making.checkpoints import find_base
from compress.making.keys import read_keys
from compress.making.source import Needs, open_source
from evaluation.experiment.first_stages import made_before
from pruning_mechanism import (
    TowerError,
    image_embeddings,
    load,
    load_processor,
    macs,
    parameters,
    pooled_only,
    read_record,
)
from pruning_mechanism.checkpoints.checkpoint import fingerprint, save, stored_dtype
from pruning_mechanism.checkpoints.from_open_clip import converting
from pruning_mechanism.checkpoints.from_open_clip.converting import directory_of
from pruning_mechanism.modeling.modeling_composed_clip import (
    ComposedClipConfig,
    ComposedClipModel,
    ComposedClipVisionModel,
)
from tests.fresh import python
from tests.lanes import sweep
from tests.pruning_mechanism.checkpoints.from_open_clip.tiny import (
    CONFIGS,
    EMBEDDING,
    MOBILE,
    SIDE,
    theirs,
    written,
)

COMPOSED = ComposedClipModel
KINDS = {
    "CLIP": CLIPModel,
    "CLIP of OpenAI": CLIPModel,
    "MetaCLIP 2": MetaClip2Model,
    "SigLIP": SiglipModel,
    "SigLIP without a bias": SiglipModel,
    "MobileCLIP": COMPOSED,
    "CLIPA": COMPOSED,
    "layer scale": COMPOSED,
    "ResNet": COMPOSED,
    "CoCa": COMPOSED,
    "ConvNeXt": COMPOSED,
    "ConvNeXt with an MLP": COMPOSED,
    "BERT": COMPOSED,
}
LIBRARY = {"MobileCLIP": "timm", "ConvNeXt": "timm"}
FEW = "CLIP of OpenAI", "MetaCLIP 2", "SigLIP", "MobileCLIP", "CoCa", "BERT"
TEXTS = ["a red disc", "a big blue star on the left of a small green square with a disc", "disc"]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    root = tmp_path_factory.mktemp("open_clip")
    return lambda kind: written(kind, root / kind.replace(" ", "-"))


@pytest.fixture(scope="module")
def spec(places):
    return lambda kind: f"open_clip:{places(kind)}"


@pytest.fixture
def pictures():
    random = torch.Generator().manual_seed(0)
    noise = torch.rand((3, 3, 6, 8), generator=random)
    sizes = [(40, 53), (64, 48), (32, 32)]
    smooth = [
        torch.nn.functional.interpolate(each[None], size, mode="bicubic").clamp(0, 1)
        for each, size in zip(noise, sizes, strict=True)
    ]
    return [Image.fromarray((255 * each[0]).byte().permute(1, 2, 0).numpy()) for each in smooth]


def test_all_kinds_are_tried():
    assert KINDS.keys() == CONFIGS.keys()


@pytest.mark.parametrize("kind", sweep(KINDS, FEW))
def test_a_model_answers_as_open_clip_does(kind, places, spec):
    model, expected = load(spec(kind)), theirs(places(kind))
    assert type(model) is KINDS[kind]
    if KINDS[kind] is COMPOSED:
        assert model.config.vision_config.library == LIBRARY.get(kind, "open_clip")
    pixels = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(
            image_embeddings(model, pixels), expected.visual(pixels), atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("kind", sweep(KINDS, ["MobileCLIP", "SigLIP"]))
def test_a_stage_reads_files_and_texts_as_open_clip_does(kind, places, spec, pictures):
    stage, place = Stage.load(spec(kind)), places(kind)
    _, _, prepare = open_clip.create_model_and_transforms(f"local-dir:{place}")
    tokens = open_clip.get_tokenizer(f"local-dir:{place}")(TEXTS)
    pixels = torch.stack([prepare(picture) for picture in pictures])
    # Pillow rounds what it resizes to 1/255, torchvision once more
    torch.testing.assert_close(stage.pixels(pictures), pixels, atol=2.1 / 255 / 0.26, rtol=0)
    model = theirs(place)
    with torch.no_grad():
        images = torch.nn.functional.normalize(model.visual(pixels), dim=-1)
        texts = model.encode_text(tokens, normalize=True)
    assert (stage.encode_images(pictures) * images).sum(1).min() > 0.999
    torch.testing.assert_close(stage.encode_texts(TEXTS), texts, atol=1e-5, rtol=0)


def test_branches_for_training_are_merged(places, spec):
    model, trained = load(spec("MobileCLIP")), theirs(places("MobileCLIP")).visual
    assert model.config.vision_config.reparameterized
    assert parameters(model) < sum(each.numel() for each in trained.parameters())
    names = list(model.state_dict())
    assert any("reparam_conv" in name for name in names)
    assert not any("conv_kxk" in name for name in names)
    assert all(each.requires_grad for each in model.vision_model.parameters())
    assert macs(model).tower > macs(model).encoder > 0


@pytest.mark.parametrize(
    "name", sweep(["fastvit_mci0", "repvit_m0_9", "mobileone_s0"], ["fastvit_mci0"])
)
def test_what_is_merged_is_made_again_by_timm(name):
    arguments = MOBILE if "fastvit" in name else {}
    entries = {"architecture": name, "arguments": arguments, "image_size": SIDE}
    vision = {**entries, "hidden_size": 16, "projection_dim": EMBEDDING, "reparameterized": True}
    with torch.device("meta"):
        model = ComposedClipVisionModel(ComposedClipConfig(vision_config=vision).vision_config)
        training = timm.create_model(name, num_classes=0, **arguments)
        merged = timm.utils.reparameterize_model(training)
    own, expected, before = (
        {name: tensor.shape for name, tensor in each.state_dict().items()}
        for each in (model.vision_model.encoder, merged, training)
    )
    assert own == expected
    assert len(own) < len(before)


def test_the_features_of_a_hybrid_tower_come_before_its_projection(spec):
    model = load(spec("MobileCLIP"))
    pixels = torch.randn(2, 3, SIDE, SIDE)
    with torch.no_grad():
        features = image_embeddings(pooled_only(model), pixels)
        projected = model.visual_projection(features)
        torch.testing.assert_close(projected, image_embeddings(model, pixels))
    assert features.shape[1] == model.config.vision_config.hidden_size > EMBEDDING


def test_padding_of_any_kind_means_the_same(spec):
    model = load(spec("MobileCLIP"))
    ids = torch.tensor([[49406, 320, 2368, 49407, 49407, 49407]])
    mask = torch.tensor([[1, 1, 1, 1, 0, 0]])
    with torch.no_grad():
        found = model.get_text_features(ids, mask).pooler_output
        for other in (ids[:, :4], torch.tensor([[49406, 320, 2368, 49407, *[0] * 8]])):
            torch.testing.assert_close(model.get_text_features(other).pooler_output, found)


def test_it_is_converted_once(spec, monkeypatch):
    place = directory_of(spec("CLIP"))
    monkeypatch.setattr(converting, "built", None)
    assert directory_of(spec("CLIP")) == place
    model = load(spec("CLIP"))
    assert model.config._name_or_path == spec("CLIP")
    assert fingerprint(spec("CLIP"), model) == fingerprint(place, model)
    assert stored_dtype(spec("CLIP")) == torch.float32
    assert read_record(spec("CLIP")) is None


def test_a_stage_of_an_experiment_is_named_so(spec):
    stage = made_before(Path(spec("MobileCLIP")))
    assert stage.name == "open_clip:MobileCLIP"
    assert not read_keys(stage.directory)
    with pytest.raises(TowerError, match="has no model 'none'"):
        made_before(Path("open_clip:none"))


def test_other_weights_are_converted_anew(places, tmp_path):
    place = tmp_path / "other"
    place.mkdir()
    for file in places("CLIP").iterdir():
        (place / file.name).write_bytes(file.read_bytes())
    before = directory_of(f"open_clip:{place}")
    weights = load_file(place / "open_clip_model.safetensors")
    weights["visual.proj"] *= 2
    halved = {name: tensor.half() for name, tensor in weights.items()}
    save_file(halved, place / "open_clip_model.safetensors")
    after = directory_of(f"open_clip:{place}")
    assert before != after
    assert stored_dtype(after) == torch.float16
    torch.testing.assert_close(
        load(after).visual_projection.weight,
        2 * load(before).visual_projection.weight,
        atol=1e-3,
        rtol=1e-3,
    )


def test_what_answers_otherwise_is_refused_and_nothing_is_kept(spec, places, monkeypatch, tmp_path):
    where = spec("MobileCLIP")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(converting, "PARITY", 1e-12)
    with pytest.raises(TowerError, match=r"image embeddings are .* of their length from open_clip"):
        directory_of(where)
    assert not list((tmp_path / "clip-cascade" / "open_clip").iterdir())


def test_without_a_cache_it_says_so(spec, monkeypatch, tmp_path):
    (tmp_path / "clip-cascade").write_text("no directory")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(TowerError, match="can't be converted in this user's cache"):
        directory_of(spec("CLIP"))


def test_a_converted_model_loads_where_this_project_is_not(spec, tmp_path):
    model = load(spec("MobileCLIP"))
    vision = model.config.vision_config
    vision.architecture, vision.arguments = "fastvit_mci0", {**vision.arguments, **MOBILE}
    save(model, tmp_path / "model", load_processor(spec("MobileCLIP")))
    pixels = torch.ones(1, 3, SIDE, SIDE)
    program = (
        "import sys, torch\n"
        "from transformers import AutoModel, AutoProcessor\n"
        "model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True).eval()\n"
        "texts = AutoProcessor.from_pretrained(sys.argv[1], trust_remote_code=True)\n"
        f"images = model.get_image_features(torch.ones(1, 3, {SIDE}, {SIDE})).pooler_output\n"
        "ids = texts(text=['a cat'], return_tensors='pt')\n"
        "found = model.get_text_features(**ids).pooler_output\n"
        "print(torch.cat([images, found]).tolist())\n"
        "assert 'pruning_mechanism' not in sys.modules\n"
    )
    environment = {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    ended = python("-c", program, tmp_path / "model", env=environment, cwd=tmp_path)
    ids = load_processor(spec("MobileCLIP")).tokenizer(["a cat"], return_tensors="pt")
    with torch.no_grad():
        images = image_embeddings(model, pixels)
        expected = torch.cat([images, model.get_text_features(**ids).pooler_output])
    found = torch.tensor(eval(ended.stdout.strip().split("\n")[-1]))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert type(AutoModel.from_pretrained(tmp_path / "model")) is COMPOSED


def command(main, options, folder, *flags):
    given = ["--corpus", "folder", "--corpus-dir", folder, "--samples", 12, *flags]
    run_command(main, options, "compress.tried", [str(each) for each in given])


@pytest.mark.parametrize("rule", [fisher, recover])
def test_rules_prune_a_plain_tower(rule, spec, folder, tmp_path):
    options = rule.FisherOptions if rule is fisher else rule.RecoverOptions
    asked = ["--model", spec("CLIP"), "--mac-constraint", 0.5, "--output", tmp_path / "out"]
    command(rule.main, options, folder, *asked, "--repair-samples", 12)
    record, dense = read_record(tmp_path / "out"), load(spec("CLIP"))
    assert record.base == "open_clip:CLIP"
    assert macs(load(tmp_path / "out")).encoder <= 0.5 * macs(dense).encoder
    assert record.base_fingerprint == fingerprint(spec("CLIP"), dense)
    assert find_base(record, tmp_path / "out") == str(directory_of(spec("CLIP")).resolve())


def test_a_hybrid_first_stage_is_aligned_to_another_full_tower(spec, folder, tmp_path):
    asked = ["--model", spec("MobileCLIP"), "--target", spec("CLIP"), "--align-features", 0]
    command(align.main, align.AlignCommandOptions, folder, *asked, "--output", tmp_path / "first")
    full = Stage.load(spec("CLIP"))
    first = Stage.load(tmp_path / "first", texts=full)
    assert type(first.model) is ComposedClipVisionModel  # its own texts lie in another space
    images = sorted((folder / "train").glob("*.png"))[:12]
    before = Stage.load(spec("MobileCLIP")).encode_images(images)
    target = full.encode_images(images)
    assert (first.encode_images(images) * target).sum() > 2 * (before * target).sum().abs()
    notes = " ".join(read_record(tmp_path / "first").notes)
    assert "aligned to open_clip:CLIP" in notes
    search = Cascade([first, full], m=[12])
    search.index(images, keys=range(12))
    found = [hit.key for hit in search.search("a red square", k=5)]
    uncascaded = (full.encode_texts(["a red square"]) @ target.T)[0].topk(5).indices.tolist()
    assert found == uncascaded


def test_an_aligned_tower_may_have_another_length_of_embedding(spec, folder, clip_directory):
    sampling = Sampling("folder", folder, samples=12)
    checkpoints = Checkpoints(spec("MobileCLIP"), full=str(clip_directory))
    source = open_source(checkpoints, sampling, Needs.of("ridge"))
    assert type(source.model) is ComposedClipVisionModel
    assert not hasattr(source.processor, "tokenizer")
