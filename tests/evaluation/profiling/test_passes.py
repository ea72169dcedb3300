"""The profiler's view of a pass: products alone are products, a tower is some of everything."""

import time

import pytest
import torch

from evaluation.profiling.passes import kernel_shares, kernels_of
from pruning_mechanism import image_embeddings
from pruning_mechanism.runtimes.on_gpu.products import EightBitLinear
from tests.conftest import tiny_clip

CPU = torch.device("cpu")


def seen(work):
    with torch.no_grad():
        return kernel_shares(work, 0, CPU)


def test_a_tower_of_products_alone_is_products():
    tower = torch.nn.Sequential(*(torch.nn.Linear(512, 512) for _ in range(3)))
    given = torch.ones(512, 512)
    found = seen(lambda: tower(given))
    assert found.products > 0.7
    assert found.attention == 0


def test_a_pass_that_waits_is_idle():
    weight = torch.ones(64, 64)

    def work():
        time.sleep(0.02)
        return weight @ weight

    assert seen(work).idle > 0.8


def test_a_tower_is_some_of_everything():
    model = tiny_clip()
    found = seen(lambda: image_embeddings(model, torch.ones(4, 3, 16, 16)))
    parts = (found.products, found.attention, found.elementwise, found.copies)
    assert all(part > 0 for part in parts)
    assert sum(parts) + found.idle == pytest.approx(1)


def test_products_in_8_bits_are_products():
    linear = EightBitLinear(torch.randn(256, 256), None, "int8")
    assert seen(lambda: linear(torch.ones(256, 256, dtype=torch.bfloat16))).products > 0


def event(name, start, seconds, category="cpu_op", thread=1):
    return {"name": name, "cat": category, "ts": start, "dur": seconds, "tid": thread}


def test_what_an_operator_calls_is_not_counted_twice():
    events = [
        event("aten::linear", 0, 10), event("aten::t", 1, 2), event("aten::addmm", 4, 5),
        event("aten::copy_", 5, 1), event("aten::add", 10, 3), event("aten::mul", 2, 4, thread=2),
        {"name": "a thread", "ph": "M"},
    ]  # fmt: skip
    found = {kernel.name: round(1e6 * kernel.seconds, 6) for kernel in kernels_of(events, False)}
    assert found == {
        "aten::linear": 3, "aten::t": 2, "aten::addmm": 4, "aten::copy_": 1, "aten::add": 3,
        "aten::mul": 4,
    }  # fmt: skip


def test_on_a_gpu_its_kernels_and_copies_count_and_nothing_of_the_cpu():
    events = [
        event("aten::addmm", 0, 50), event("nvjet_tst", 3, 7, "kernel"),
        event("Memcpy HtoD", 1, 2, "gpu_memcpy"), event("Memset", 1, 1, "gpu_memset"),
        event("a region", 0, 90, "gpu_user_annotation"),
        event("cudaLaunchKernel", 1, 1, "cuda_runtime"),
    ]  # fmt: skip
    found = [(kernel.name, round(1e6 * kernel.seconds)) for kernel in kernels_of(events, True)]
    assert found == [("nvjet_tst", 7), ("Memcpy HtoD", 2), ("Memset", 1)]
