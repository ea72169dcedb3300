"""How much memory a whole run of `compress.fisher` takes on a ViT-B/16, in a process of its own.

    FISHER_IMAGES=2048 pytest tests/benchmarks/test_memory.py --benchmark-only

Meant for that number, which is the paper's; it takes more than half an hour on 2 cores, so the
default is 128. `BENCH_LAYERS=2 FISHER_IMAGES=8` tries it out.
"""

import os
import resource
import subprocess
import sys

import torch
from transformers import CLIPConfig, CLIPModel

from tests.benchmarks.conftest import LAYERS
from tests.conftest import WORDS, tiny_processor

IMAGES = os.environ.get("FISHER_IMAGES", "128")


def test_peak_memory_of_fisher_on_a_vit_b16(benchmark, tmp_path):
    torch.manual_seed(0)
    text = {"num_hidden_layers": 1, "vocab_size": len(WORDS) + 3, "max_position_embeddings": 16}
    text |= {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    vision = {"patch_size": 16, "num_hidden_layers": LAYERS}
    model = CLIPModel(CLIPConfig(vision_config=vision, text_config=text))
    model.save_pretrained(tmp_path / "vit-b16")
    tiny_processor(size=224).save_pretrained(tmp_path / "vit-b16")
    command = [sys.executable, "-m", "compress.fisher", "--model", tmp_path / "vit-b16"]
    command += ["--samples", IMAGES, "--output", tmp_path / "out", "--mac-constraint", "0.5"]

    def whole_run():
        subprocess.run(command, check=True, capture_output=True)

    benchmark.pedantic(whole_run, rounds=1, iterations=1)
    kibibytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    benchmark.extra_info |= {"images": int(IMAGES), "peak_gib": round(kibibytes / 2**20, 2)}
