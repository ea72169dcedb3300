"""A student learns the full tower's embeddings, and what it becomes is a stage like any other."""

import json

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cosine_similarity

from cascade import Cascade, Stage
from compress import align, distill, heal
from compress.command import run_command
from compress.students.student import Asked, new_student
from corpora import load_corpus, open_image
from corpora.column import undecoded
from pruning_mechanism import load, mac_share, macs, read_record, sublayers

STUDENT = "timm:test_resnet"


def line(clip_directory, hundred, place, *flags) -> list[str]:
    given = ["--model", clip_directory, "--corpus", "folder", "--corpus-dir", hundred]
    usual = ["--student", STUDENT, "--image-size", 32, "--weights", "scratch", "--steps", 6]
    usual += ["--views", 2, "--batch-size", 16, "--held-out", 24, "--output", place / "out"]
    return [str(part) for part in (*given, *usual, "--state", place / "state", *flags)]


def run(arguments, command=distill, options=distill.DistillOptions) -> None:
    run_command(command.main, options, command.__name__, arguments)


@pytest.fixture(scope="module")
def student(clip_directory, hundred, tmp_path_factory):
    place = tmp_path_factory.mktemp("student")
    run(line(clip_directory, hundred, place))
    return place / "out"


def images(folder) -> list:
    files = undecoded(load_corpus("folder", folder, "train"))["image"][:24]
    return [open_image(file) for file in files]


def test_it_answers_nearly_as_the_full_tower(student, clip_directory, hundred):
    full = Stage.load(clip_directory)
    own = Stage.load(student, texts=full)
    found = cosine_similarity(
        own.encode_images(images(hundred)), full.encode_images(images(hundred))
    )
    assert found.mean() > 0.9


def test_it_is_a_stage_in_front_of_the_full_tower(student, clip_directory, hundred):
    full = Stage.load(clip_directory)
    own = Stage.load(student, texts=full, attention="fastest")
    cascade = Cascade([own, full], m=[12])
    cascade.index(images(hundred), keys=range(24))
    alone = Cascade([full])
    alone.index(images(hundred), keys=range(24))
    found, wanted = (each.search("a big red square", 1)[0] for each in (cascade, alone))
    assert found.score == pytest.approx(wanted.score, abs=1e-5)
    assert cascade.encoded[1] == 12


def test_its_record_says_what_it_is(student, clip_directory):
    record = read_record(student)
    assert record.rule == "distill"
    assert record.constraint == "test_resnet"
    assert record.chain == ("distill test_resnet",)
    assert "timm:test_resnet: from scratch" in record.notes
    model = load(student)
    assert record.macs == macs(model).encoder
    assert record.mac_fraction == pytest.approx(mac_share(model, load(clip_directory)))
    assert json.loads((student / "config.json").read_text())["architecture"] == "test_resnet"


def test_its_macs_are_those_of_its_products(student):
    """Counted by hand from the shapes that pass through convolutions and linear layers."""
    model, found = load(student), []

    def count(module, _given, made):
        if isinstance(module, torch.nn.Conv2d):
            height, width = made.shape[-2:]
            found.append(height * width * module.weight.numel())
        elif isinstance(module, torch.nn.Linear):
            found.append(module.weight.numel())

    for module in model.modules():
        module.register_forward_hook(count)
    with torch.no_grad():
        model.get_image_features(torch.zeros(1, 3, 32, 32))
    assert macs(model).tower == sum(found)
    assert macs(model).encoder == sum(found[:-1])


def test_the_backbone_stays_where_the_head_alone_learns(clip_directory, hundred, tmp_path):
    drawn = new_student(Asked(STUDENT, "scratch", 32), 8).model.state_dict()
    run(line(clip_directory, hundred, tmp_path, "--train", "head", "--steps", 2))
    after = load_file(tmp_path / "out" / "model.safetensors")
    for name, tensor in after.items():
        settled = name.endswith(("running_mean", "running_var", "num_batches_tracked"))
        if name.startswith("vision_model") and not settled:
            assert torch.equal(tensor, drawn[name]), name
    assert not torch.equal(
        after["visual_projection.linear.weight"], drawn["visual_projection.linear.weight"]
    )


@pytest.mark.parametrize(
    "flags",
    [
        ("--contrastive", 0.5, "--distinct-captions", 0.99, "--views", 3),
        ("--affinity", 1, "--dropout", 0.2, "--no-flips", "--views", 2),
        ("--student", "timm:test_vit", "--attention", "sigmoid"),
    ],
    ids=["captions", "affinity", "sigmoid"],
)
def test_all_that_it_may_learn_by_goes_together(flags, clip_directory, hundred, tmp_path):
    run(line(clip_directory, hundred, tmp_path, "--steps", 2, *flags))
    assert not list((tmp_path / "state").iterdir())
    loaded = load(tmp_path / "out")
    assert loaded.config.sigmoid_attention == ("sigmoid" in flags)


def test_the_same_command_makes_the_same_student(student, clip_directory, hundred, tmp_path):
    run(line(clip_directory, hundred, tmp_path))
    again, first = (load_file(path / "model.safetensors") for path in (tmp_path / "out", student))
    assert all(torch.equal(again[name], first[name]) for name in first)


def test_it_is_healed_and_aligned_like_any_first_stage(student, clip_directory, hundred, tmp_path):
    given = ["--model", student, "--corpus", "folder", "--corpus-dir", hundred]
    aligned, healed = tmp_path / "aligned", tmp_path / "healed"
    run(
        [*map(str, given), "--output", str(aligned)],
        command=align,
        options=align.AlignCommandOptions,
    )
    flags = ["--steps", "2", "--batch-size", "16", "--output", str(healed)]
    state = ["--state", str(tmp_path / "state")]
    run([*map(str, given), *flags, *state], command=heal, options=heal.HealOptions)
    assert read_record(healed).chain == ("distill test_resnet", "heal steps 2")
    assert read_record(aligned).chain == ("distill test_resnet", "align ridge")


def test_pretrained_weights_are_those_of_the_file(tmp_path):
    weights = timm.create_model("test_resnet").state_dict()
    save_file(weights, tmp_path / "weights.safetensors")
    made = new_student(Asked(STUDENT, str(tmp_path / "weights.safetensors"), 32), 8)
    own = made.model.vision_model.encoder.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in own.items())
    assert not made.drawn
    assert made.images.image_mean == pytest.approx((0.5, 0.5, 0.5))


def test_weights_that_cannot_be_reached_are_drawn_and_it_says_so(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    made = new_student(Asked(STUDENT, image_size=32), 8)
    assert made.drawn
    assert made.notes == ("timm:test_resnet: pretrained weights can't be reached, so from scratch",)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--student", "test_resnet"), "write timm:NAME"),
        (("--student", "timm:mobilnetv3_small_100"), "mobilenetv3_small_100"),
        (("--weights", "nothing.safetensors"), "no such file"),
        (("--weights", __file__), "only safetensors files"),
        (("--student", "timm:test_vit", "--attention", "softmax", "--image-size", 8), "8 pixels"),
        (("--attention", "sigmoid"), "sigmoid attention is for"),
        (("--cosine", 0), "nothing would be learnt"),
        (("--align", "none"), "--align ridge"),
        (("--distinct-captions", 0.9), "--contrastive 0"),
        (("--text-encoder", "all-MiniLM-L6-v2", "--target", "x"), "--text-encoder"),
    ],
)
def test_what_cannot_be_is_one_line(flags, said, clip_directory, hundred, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        run(line(clip_directory, hundred, tmp_path, *flags))
    assert ended.value.code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_rules_that_prune_layers_refuse_it_in_one_line(student):
    with pytest.raises(ValueError, match=r"no layers that rules know.*compress\.align"):
        sublayers(load(student))
