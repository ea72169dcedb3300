"""Whatever is changed in a checkpoint's files, it answers as before or is refused in one line.

`MUTATIONS=1000 pytest tests/pruning_mechanism/test_mutated_checkpoints.py -s` makes as many seeded
changes and prints what became of them; without it there are a hundred. No check can know that some
entries were others before, such as the name of an activation or the mean that pixels are
normalised by: `UNKNOWABLE` names all of these, and changes of them may change the embeddings.
"""

import io
import json
import os
import random
import resource
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from cascade import Stage
from pruning_mechanism import (
    Compression,
    Mask,
    Reduction,
    TowerError,
    align,
    prune,
    read_record,
    reduce,
    save,
)
from pruning_mechanism.modeling.aligned_projection import AlignedProjection
from tests.conftest import tiny_clip, tiny_processor
from tests.lanes import examples
from tests.pruning_mechanism.conftest import random_slim_mask, tiny_model

MUTATIONS = int(os.environ.get("MUTATIONS", examples(30, 100)))
SECONDS, MEMORY = 120, 2**30
TEXTS = ["a red disc", "a big blue star on the left"]
UNKNOWABLE = {
    "hidden_act", "layer_norm_eps", "num_attention_heads", "eos_token_id", "kept_patches",
    "patch_rule", "patch_seed", "merged_per_layer", "ranked_per_layer", "ranker", "resolutions",
    "resolution_bounds", "resolution_shares", "query_key_sizes", "value_sizes",
}  # fmt: skip
"""Entries of config.json whose other values are as good as theirs."""
VALUES = (
    None, True, False, 0, -1, 1, 2, 3, 10**9, 10**18, 1.5, -0.5, 1e308, float("nan"), "", "x",
    "unknown", [], [1], [[[[]]]], {}, {"a": {"b": [1]}}, [0] * 50, "9" * 1000,
)  # fmt: skip
CODE = "import pathlib; pathlib.Path({marker!r}).touch()\nclass Evil: pass\n"


class Hung(BaseException):
    """A change made loading take longer than it may."""


def record() -> Compression:
    return Compression(
        rule="flip", constraint="mask 0.5", repair="none", base="tiny", base_fingerprint="none",
        corpus="scenes train", samples=8, seed=0, macs=1, mac_fraction=0.5, tower_macs=2,
        parameters=3, seconds=0.1, chain=("flip mask 0.5",),
    )  # fmt: skip


def write_checkpoints(place: Path) -> list[Path]:
    """A dense checkpoint, pruned ones and those with fewer tokens, layers and pixels."""
    dense = tiny_clip()
    slim = prune(prune(dense, random_slim_mask(5)), _text_mask(dense), "text")
    flipped = reduce(dense, Reduction(kept_patches=8, patch_rule="grid", layers=2))
    torch.manual_seed(0)
    aligned = align(flipped, AlignedProjection(32, 6, 8))
    merged = reduce(slim, Reduction(merged_per_layer=(2, 2, 0), ranked_per_layer=(0, 8, 0)))
    sizes = Reduction(resolutions=(8, 16), resolution_bounds=(0.5,), resolution_shares=(0.5, 0.5))
    models = {
        "dense": dense, "slim": slim, "aligned": aligned, "merged": merged,
        "resolutions": reduce(dense, sizes), "siglip": prune(tiny_model("siglip"),
        random_slim_mask(2)),
    }  # fmt: skip
    for name, model in models.items():
        save(model, place / name, tiny_processor(), None if name == "dense" else record())
        if name != "dense":
            random_slim_mask(5).save(place / name / "mask.safetensors")
    return [place / name for name in models]


def _text_mask(model) -> Mask:
    dense = Mask.dense(model.config, "text")
    return Mask(dense.heads, dense.neurons & (torch.arange(24) < 17))


def answers(directory: Path) -> dict[str, object]:
    """All that is read of a checkpoint, each by its name."""
    stage = Stage.load(directory, batch_size=2)
    noise = torch.randint(0, 256, (2, 20, 24, 3), generator=torch.Generator().manual_seed(0))
    pictures = [Image.fromarray(each.byte().numpy()) for each in noise]
    found = {"images": stage.encode_images(pictures), "record": read_record(directory)}
    found["names"] = bool(stage.name and stage.text_name)
    found["texts"] = stage.encode_texts(TEXTS)
    if (directory / "mask.safetensors").is_file():
        found["mask"] = Mask.load(directory / "mask.safetensors")
    return found


class Mutator:
    """Changes one thing in a checkpoint, and says what."""

    def __init__(self, seed: int, marker: Path):
        self.random, self.marker = random.Random(seed), marker

    def mutate(self, directory: Path) -> tuple[str, str, bool]:
        """The kind of the file, what was done to it, and whether the answers may be others."""
        kind = self.random.choices(
            ["config", "record", "mask", "processor", "tokenizer", "weights", "code"],
            [6, 2, 1, 3, 3, 4, 1],
        )[0]
        if kind == "code":
            return (kind, *self._code(directory))
        if kind in ("weights", "mask"):
            name = "model.safetensors" if kind == "weights" else "mask.safetensors"
            file = directory / name
            if not file.is_file():
                file = directory / "model.safetensors"
            return (kind, *self._tensors(file))
        names = {
            "config": ["config.json"],
            "record": ["compression.json"],
            "processor": ["processor_config.json", "preprocessor_config.json"],
            "tokenizer": ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"],
        }[kind]
        there = [name for name in names if (directory / name).is_file()] or ["config.json"]
        file = directory / self.random.choice(there)
        kind = "config" if file.name == "config.json" else kind
        if self.random.random() < 0.2:
            done = self._bytes(file)
            return kind, f"{file.name}: {done}", kind in ("processor", "tokenizer")
        done, path = self._entry(file)
        free = kind in ("processor", "tokenizer") and "crop_size" not in path
        return kind, f"{file.name}: {done}", free or bool(UNKNOWABLE & set(map(str, path)))

    def _bytes(self, file: Path) -> str:
        content = file.read_bytes()
        cut = self.random.randrange(len(content))
        noise = self.random.randbytes(20)
        ways: dict[str, Callable[[], bytes]] = {
            "empty": lambda: b"",
            "cut short": lambda: content[:cut],
            "random bytes": lambda: noise,
            "bytes changed": lambda: content[:cut] + noise + content[cut + 20 :],
            "a list": lambda: b"[]",
            "null": lambda: b"null",
            "a text": lambda: b'"x"',
            "too deep": lambda: b"[" * 100_000,
            "no UTF-8": lambda: b"\xff\xfe" + content,
        }
        way = self.random.choice([*ways, "gone", "a directory"])
        file.unlink()
        if way == "a directory":
            file.mkdir()
        elif way != "gone":
            file.write_bytes(ways[way]())
        return way

    def _entry(self, file: Path) -> tuple[str, list]:
        content = json.loads(file.read_text())
        path, place = [], content
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = self.random.choice(keys)
            path.append(key)
            below = place[key]
            if not (isinstance(below, (dict, list)) and below) or self.random.random() < 0.2:
                break
            place = below
        way = self.random.choice(["delete", "rename", "add", "value", "value", "value"])
        if way == "delete":
            del place[key]
        elif way == "rename" and isinstance(place, dict):
            place[f"{key}_"] = place.pop(key)
        elif way == "add" and isinstance(place, dict):
            place["something_else"] = self.random.choice(VALUES)
        else:
            way = self.random.choice(VALUES)
            place[key] = way
        file.write_text(json.dumps(content))
        return f"{'.'.join(map(str, path))}: {str(way)[:40]}", path

    def _tensors(self, file: Path) -> tuple[str, bool]:
        if self.random.random() < 0.3:
            return f"{file.name}: {self._cut(file)}", False
        tensors = load_file(file)
        name = self.random.choice(sorted(tensors))
        tensor = tensors.pop(name)
        ways = {
            "gone": {},
            "renamed": {f"{name}_": tensor},
            "prefixed": {f"module.{name}": tensor},
            "an adapter": {f"{name}.lora_A": tensor},
            "beside": {name: tensor, "head.weight": torch.ones(2)},
            "other sizes": {name: torch.ones(*tensor.shape, 2)},
            "empty": {name: tensor.new_zeros(0)},
            "transposed": {name: tensor.flatten()[None]},
            "whole numbers": {name: tensor.to(torch.int64)},
            "not a number": {name: tensor.float() * float("nan")},
            "infinite": {name: tensor.float() + float("inf")},
            "twice as exact": {name: tensor.double()},
        }
        way = self.random.choice(sorted(ways))
        save_file({**tensors, **ways[way]}, file, metadata={"format": "pt"})
        bits = file.name.startswith("mask")  # a mask of other numbers is another mask
        return f"{file.name}: {name} {way}", bits

    def _cut(self, file: Path) -> str:
        content = file.read_bytes()
        size = int.from_bytes(content[:8], "little")
        cut = self.random.randrange(len(content))
        ways = {
            "cut short": content[:cut],
            "empty": b"",
            "header longer than the file": (10**12).to_bytes(8, "little") + content[8:],
            "header of noise": content[:8] + self.random.randbytes(size) + content[8 + size :],
            "bytes after the end": content + b"\0" * 8,
            "a huge tensor": self._huge(content, size),
        }
        way = self.random.choice(sorted(ways))
        file.write_bytes(ways[way])
        return way

    @staticmethod
    def _huge(content: bytes, size: int) -> bytes:
        header = json.loads(content[8 : 8 + size])
        name = next(each for each in header if each != "__metadata__")
        header[name]["shape"] = [10**9, 10**3]
        text = json.dumps(header).encode()
        return len(text).to_bytes(8, "little") + text + content[8 + size :]

    def _code(self, directory: Path) -> tuple[str, bool]:
        (directory / "evil.py").write_text(CODE.format(marker=str(self.marker)))
        name = self.random.choice(["config.json", "processor_config.json", "tokenizer_config.json"])
        file = directory / name
        content = json.loads(file.read_text())
        kinds = ("AutoConfig", "AutoModel", "AutoProcessor", "AutoImageProcessor")
        auto_map = dict.fromkeys(kinds, "evil.Evil") | {"AutoTokenizer": ["evil.Evil"] * 2}
        content["auto_map"] = auto_map
        if isinstance(content.get("image_processor"), dict):
            content["image_processor"]["auto_map"] = auto_map
        if self.random.random() < 0.5:
            for key in ("model_type", "processor_class", "tokenizer_class"):
                if key in content:
                    content[key] = "Evil"
        file.write_text(json.dumps(content))
        return f"{name}: auto_map", name != "config.json"


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    place = tmp_path_factory.mktemp("originals")
    return {each: answers(each) for each in write_checkpoints(place)}


def outcome(directory: Path, original: dict[str, object], free: bool) -> str:
    """What became of a changed checkpoint; anything but one of these is a failure."""
    found, said = {}, None
    try:
        found = answers(directory)
    except TowerError as error:
        said = str(error)
    if said is not None:
        assert 10 < len(said) < 1000, f"no short line: {said!r}"
        assert "\n" not in said, f"several lines: {said!r}"
        return "refused"
    same = {
        name: torch.equal(found[name], value)
        if isinstance(value, torch.Tensor)
        else found[name] == value
        for name, value in original.items()
        if name in found and name not in ("record", "mask")
    }
    if all(same.values()):
        return "as before"
    assert free, f"answers otherwise without a word: {same}"
    return "otherwise, as nobody can know"


def test_a_changed_checkpoint_answers_as_before_or_is_refused(
    checkpoints, tmp_path, monkeypatch, capfd
):
    marker, table, failures = tmp_path / "code ran", Counter(), []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def hang(*_):
        raise Hung

    alarm = signal.signal(signal.SIGALRM, hang)
    for seed in range(MUTATIONS):
        original = sorted(checkpoints)[seed % len(checkpoints)]
        copy = tmp_path / "copy"
        shutil.copytree(original, copy)
        kind, done, free = Mutator(seed, marker).mutate(copy)
        monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 9))
        signal.alarm(SECONDS)
        try:
            became = outcome(copy, checkpoints[original], free)
        except (Exception, Hung) as error:
            became = "FAILED"
            failures.append(f"{seed}, {original.name}, {done}: {type(error).__name__}: {error}")
        finally:
            signal.alarm(0)
        table[kind, became] += 1
        shutil.rmtree(copy)
    signal.signal(signal.SIGALRM, alarm)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    with capfd.disabled():
        for (kind, became), count in sorted(table.items()):
            print(f"\n{kind:10} {became:30} {count:5}", end="")
        print(f"\nmemory grew by {grown / 2**20:.0f} MiB at most")
    assert not failures, "\n".join(failures)
    assert not marker.exists(), "code beside weights was run"
    assert grown < MEMORY
