"""A tower in each of several runtimes, and their seconds in turn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from datasets import Dataset

from cascade import Stage
from cascade.stages.reading import reads_of
from cascade.stages.running import check_running
from evaluation.experiment.search import file_contents
from evaluation.in_runtimes.searching import TORCH
from evaluation.measuring.clock import StageTiming, encoding, stage_timings
from evaluation.profiling.groups import Shares
from evaluation.profiling.passes import kernel_shares
from evaluation.reports.runtimes import Kept, Refusal, RuntimeRow
from pruning_mechanism import TowerError, load, load_processor, macs
from pruning_mechanism.checkpoints.record import first_line
from pruning_mechanism.costs.conditions import noise_pixels
from pruning_mechanism.runtimes import RUNTIMES


@dataclass(frozen=True)
class Contenders:
    """A tower in each runtime, by "runtime:dtype", torch's float32 first, and what can't be had."""

    tower: str
    stages: Mapping[str, Stage]
    refused: Sequence[Refusal]

    @classmethod
    def of(
        cls,
        path: str,
        called: str,
        asked: Sequence[str],
        device: str,
        batch: int,
        full: Stage | None,
    ) -> "Contenders":
        """Load a tower once and put it into each runtime.

        Each has embedded a batch of noise: what compiles at the first batch has.

        Args:
            path: of the checkpoint.
            called: what the report calls it.
            asked: runtimes with their types.
            device: where the tower runs.
            batch: images that are embedded at once.
            full: the full tower, whose texts search.

        Raises:
            TowerError: torch can't compute the tower in float32.
        """
        model, processor = load(path, device, exact=True), load_processor(path)
        reads, noise = reads_of(path), noise_pixels(model, batch)
        stages: dict[str, Stage] = {}
        refused = []
        for name in dict.fromkeys((TORCH, *asked)):
            runtime, _, dtype = name.partition(":")
            try:
                found = check_running(runtime, dtype, device, None).find(model, path, batch)
                stage = Stage(model, processor, batch, full, reads=reads, in_runtime=found)
                stage.encode_pixels(noise)
            except (TowerError, RuntimeError) as error:  # a GPU's libraries raise the latter
                if name == TORCH:
                    raise
                refused.append(Refusal(called, runtime, dtype, first_line(error)))
            else:
                stages[name] = stage
        return cls(called, stages, refused)


def timed(
    contenders: Contenders,
    kept: Mapping[str, Kept],
    corpus: Dataset,
    repetitions: int,
    kernels: bool,
) -> list[RuntimeRow]:
    """Rows of a tower, its runtimes timed in turn on as many threads as torch has.

    Args:
        contenders: the tower in its runtimes.
        kept: what each keeps of results; those of which nothing is known aren't timed.
        corpus: the images that are timed are its first.
        repetitions: times that each is timed.
        kernels: whether to say what the time goes to.
    """
    stages = {name: stage for name, stage in contenders.stages.items() if name in kept}
    first = next(iter(stages.values()))
    device, files = first.device, file_contents(corpus, first.batch_size)
    works = {name: encoding(stage) for name, stage in stages.items()}
    timings: dict[str, StageTiming] = stage_timings(works, files, repetitions, str(device))
    noise = noise_pixels(first.model, len(files))
    teramacs = macs(first.model).tower / 1e12
    return [
        RuntimeRow(
            tower=contenders.tower,
            runtime=stage.runs_in.runtime,
            dtype=stage.runs_in.dtype,
            threads=torch.get_num_threads(),
            encoder=timings[name].encoder,
            end_to_end=timings[name].end_to_end,
            kept=kept[name],
            rounded=len(stage.runs_in.rounded),
            left=len(stage.runs_in.left),
            teraflops=2 * teramacs / timings[name].encoder.median,
            kernels=_shares(stage, noise, timings[name]) if kernels else None,
        )
        for name, stage in stages.items()
    ]


def _shares(stage: Stage, noise: torch.Tensor, timing: StageTiming) -> Shares | None:
    """What a stage's time goes to; None where another program than torch computes it."""
    if RUNTIMES[stage.runs_in.runtime].form is not None:
        return None
    seconds = timing.encoder.median * len(noise)
    return kernel_shares(partial(stage.encode_pixels, noise), seconds, stage.device)
