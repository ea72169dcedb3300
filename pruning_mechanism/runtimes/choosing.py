"""Which runtime is fastest here: measured in turn, once, and remembered in the user's cache.

Like `attention.fastest_attention`, one floor up. Contenders are the runtimes that are installed,
in float32 and, where the machine multiplies in them and embeddings stay what they are
(`parity.KEEPS`), in bfloat16 and, on a GPU, float16. int8 contends only where it is asked for: what
it keeps depends on the images. torch.compile doesn't: it takes minutes to find out what it would
give, and what it has alone (float8) isn't found here.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch
from transformers import PreTrainedModel

from pruning_mechanism.checkpoints.record import first_line, read_fields
from pruning_mechanism.costs.clock import in_turn
from pruning_mechanism.costs.conditions import noise_pixels, settle_memory
from pruning_mechanism.costs.processor import processor_name
from pruning_mechanism.families import TowerError
from pruning_mechanism.runtimes.exports import StaleExportError, tower_digest
from pruning_mechanism.runtimes.in_torch import TorchRuntime
from pruning_mechanism.runtimes.parity import KEEPS, Parity, noise_parity
from pruning_mechanism.runtimes.runtime import Dtype, Runtime
from pruning_mechanism.runtimes.table import RUNTIMES, Row, Subject, lying, make_runtime
from pruning_mechanism.user_cache import cache_file, keep

CONTENDERS = ("torch", "onnxruntime", "openvino")
REPETITIONS = 5
LIBRARIES = ("torch", "onnxruntime", "openvino")


@dataclass(frozen=True)
class RuntimeChoice:
    """What a tower runs in, and why.

    `seconds` are median seconds per image by contender ("openvino bfloat16"), measured with
    `batch_size` images on `threads` threads; none where nothing was measured. `left_out` says why
    the others didn't contend. In 8 bits by torch, `rounded` names the products that are, and `left`
    those in bfloat16.
    """

    runtime: str
    dtype: str
    seconds: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    batch_size: int = 0
    threads: int = 0
    rounded: tuple[str, ...] = ()
    left: tuple[str, ...] = ()

    @classmethod
    def of(cls, runtime: Runtime) -> "RuntimeChoice":
        """A runtime that was asked for by name."""
        if not isinstance(runtime, TorchRuntime):
            return cls(runtime.name, runtime.dtype)
        return cls(runtime.name, runtime.dtype, rounded=runtime.rounded, left=runtime.left)

    def __str__(self) -> str:
        if not self.seconds:
            said = f"{self.runtime}, {self.dtype}"
            products = len(self.rounded) + len(self.left)
            return f"{said} ({len(self.rounded)} of {products} products)" if self.rounded else said
        times = ", ".join(
            f"{name} {1000 * seconds:.3g} ms"
            for name, seconds in sorted(self.seconds.items(), key=lambda item: item[1])
        )
        return (
            f"{self.runtime}, {self.dtype}: the fastest of {times} an image "
            f"(batches of {self.batch_size}, {self.threads} threads)"
        )


def choose_runtime(
    subject: Subject, dtype: Dtype | None, batch_size: int
) -> tuple[Runtime, RuntimeChoice]:
    """The fastest runtime for a tower on this machine.

    What was found once for the same tower, processor, threads, batch size and versions is taken
    again without a measurement. Graphs that aren't there yet are made first, which takes up to a
    minute for each.

    Args:
        subject: the tower.
        dtype: the only one that contends; None: float32, and bfloat16 and on a GPU float16 where
            they keep embeddings.
        batch_size: images in a batch; the choice is true of batches of that size.

    Raises:
        StaleExportError: an export beside the weights is of others.
        TowerError: no runtime computes in this type here.
    """
    kinds = _usual(subject.device) if dtype is None else (dtype,)
    name = _key(subject.model, kinds, batch_size)
    if (remembered := _remembered(name)) is not None:
        try:
            row = RUNTIMES[remembered.runtime]
            return make_runtime(subject, row, _dtype(remembered)), remembered
        except StaleExportError:
            raise
        except TowerError:  # such as a library that is gone, or an export: measure again
            pass
    runtimes, left_out = _contenders(subject, kinds, asked=dtype is not None)
    if not runtimes:
        raise TowerError(f"no runtime can do what is asked: {'; '.join(left_out.values())}")
    choice = _measured(subject.model, runtimes, left_out, batch_size)
    text = json.dumps(asdict(choice), indent=1)
    keep(name, lambda file: file.write_text(text))
    return runtimes[f"{choice.runtime} {choice.dtype}"], choice


def _contenders(
    subject: Subject, kinds: Sequence[Dtype], asked: bool
) -> tuple[dict[str, Runtime], dict[str, str]]:
    """Runtimes that may be chosen, and why the others may not.

    Args:
        subject: the tower.
        kinds: types that contend.
        asked: whether they must, whatever embeddings become.
    """
    found: dict[str, Runtime] = {}
    left_out: dict[str, str] = {}
    for row in map(RUNTIMES.__getitem__, CONTENDERS):
        for kind in kinds:
            if kind not in row.dtypes:
                continue
            name = f"{row.name} {kind}"
            try:
                runtime = make_runtime(subject, row, kind)
            except StaleExportError:
                raise
            except TowerError as error:
                left_out[name] = first_line(error)
                continue
            if kind != "float32" and not asked:
                parity = _parity(subject, row, kind, runtime)
                if parity.cosine < KEEPS:
                    left_out[name] = f"embeddings change: cosine {parity.cosine:.5f} < {KEEPS}"
                    continue
            found[name] = runtime
    return found, left_out


def _usual(device: str) -> tuple[Dtype, ...]:
    """Types that contend where none is asked for."""
    if torch.device(device).type == "cpu":
        return ("float32", "bfloat16")
    return ("float32", "float16", "bfloat16")


def check_chosen(dtype: Dtype, device: str) -> None:
    """Raise `TowerError` if none of the runtimes that contend computes in a type on a device."""
    problems = []
    for row in map(RUNTIMES.__getitem__, CONTENDERS):
        try:
            row.check(dtype, device)
        except TowerError as error:
            problems.append(error)
        else:
            return
    raise problems[0]


def _parity(subject: Subject, row: Row, dtype: Dtype, runtime: Runtime) -> Parity:
    """How well a runtime keeps embeddings: on images if its export tells, else on noise."""
    if row.form is not None:
        export = lying(subject, row.form, dtype, tower_digest(subject.model))
        if export is not None and export[1].dtype == dtype and export[1].on_images is not None:
            return export[1].on_images
    return noise_parity(subject.model, runtime.embed)


@torch.inference_mode()
def _measured(
    model: PreTrainedModel,
    runtimes: Mapping[str, Runtime],
    left_out: dict[str, str],
    batch_size: int,
) -> RuntimeChoice:
    pixels = noise_pixels(model, batch_size)
    settle_memory()
    works = {name: lambda run=runtime: run.embed(pixels) for name, runtime in runtimes.items()}
    turns = in_turn(works, REPETITIONS, pixels.device)
    seconds = {name: float(np.median(taken)) / batch_size for name, taken in turns.items()}
    runtime, _, dtype = min(seconds, key=seconds.__getitem__).partition(" ")
    return RuntimeChoice(runtime, dtype, seconds, left_out, batch_size, torch.get_num_threads())


def _key(model: PreTrainedModel, kinds: Sequence[Dtype], batch_size: int) -> str:
    """The name of the file that remembers a choice made under these conditions."""
    conditions = [
        tower_digest(model),
        str(model.device),
        processor_name(model.device),
        torch.get_num_threads(),
        batch_size,
        kinds,
        *map(_version, LIBRARIES),
    ]
    digest = hashlib.sha256(json.dumps(conditions).encode()).hexdigest()
    return f"runtimes/chosen-{digest[:32]}.json"


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _remembered(name: str) -> RuntimeChoice | None:
    """What was chosen before; None: nothing, or what is written there isn't that."""
    try:
        file = cache_file(name)
        choice = read_fields(file, RuntimeChoice) if file.is_file() else None
    except (TowerError, RuntimeError):
        return None
    if choice is None or choice.runtime not in RUNTIMES:
        return None
    if choice.dtype not in RUNTIMES[choice.runtime].dtypes:
        return None
    return choice


def _dtype(choice: RuntimeChoice) -> Dtype:
    """The type of a choice."""
    return next(kind for kind in RUNTIMES[choice.runtime].dtypes if kind == choice.dtype)
