"""What an installed clip-cascade must do outside its checkout, with no network.

A first stage is made of the embedded checkpoint, put in front of it, and searched with.
"""

import subprocess
import sys
from pathlib import Path

import cascade
import commands
import compress
import corpora
import demo
import evaluation
import figures
import pruning_mechanism
from cascade import Cascade, Stage
from corpora.scenes import SEEDS, captions, render, scene
from evaluation import metrics

COMMANDS = ("compress.joint", "evaluation.cascade", "figures.pareto", "demo.train")

for package in (
    cascade,
    commands,
    compress,
    corpora,
    demo,
    evaluation,
    figures,
    pruning_mechanism,
):
    place = Path(package.__file__)
    assert place.is_relative_to(sys.prefix), f"{place} is not what was installed"
for command in COMMANDS:
    subprocess.run([sys.executable, "-m", command, "--help"], check=True, capture_output=True)

photos = Path("photos")
photos.mkdir()
drawn = [scene(SEEDS["train"], number) for number in range(16)]
for number, picture in enumerate(drawn):
    render(picture).convert("RGB").save(photos / f"{number:02d}.jpg")
made = ("--layer", "4", "--corpus", "folder", "--corpus-dir", "photos", "--output", "first-stage")
subprocess.run(
    [sys.executable, "-m", "compress.early_exit", *made], check=True, capture_output=True
)

full = Path(demo.__file__).with_name("clip-scenes")
search = Cascade([Stage.load("first-stage"), Stage.load(full)], m=[5])
assert search.index(sorted(photos.glob("*.jpg"))) == len(drawn)
hits = search.search(captions(drawn[3])[0], k=3)
assert [hit.stage for hit in hits] == [1, 1, 1]
assert search.encoded == (16, 5)

recall = metrics.load("recall_at_k")
print(
    f"found {', '.join(Path(hit.key).name for hit in hits)}; {recall.name} loads without a network"
)
