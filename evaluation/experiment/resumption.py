"""The full tower going on from a first stage's states: its seconds, its answers, what it keeps.

Stands beside `evaluation.experiment.search`: where a first stage exits early (`cascade.resume`), it
becomes a second row of the report, in which nothing of the full tower is run from the image.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from tqdm import tqdm

from cascade import ResumedStage, Stage, query_speedup
from cascade.resume import exits_early
from evaluation.experiment.first_stages import FirstStage
from evaluation.experiment.giving import Giving
from evaluation.experiment.quality import result
from evaluation.experiment.search import Search, image_batches
from evaluation.experiment.together import in_front
from evaluation.measuring.clock import StageTiming, speedup_interval
from evaluation.options import SearchOptions
from evaluation.reports.row import Row
from pruning_mechanism import TowerError


@dataclass(frozen=True)
class Resumption:
    """A stage that resumes, and what it made of the collection.

    `first` [N, d] are the early exit's embeddings, `then` [N, d] those of the tower that went on
    from its states, `state_bytes` what these take for one image.
    """

    stage: ResumedStage
    first: Tensor
    then: Tensor
    state_bytes: int


@dataclass(frozen=True)
class ResumedTiming:
    """Seconds of the early exit that keeps its states, of going on from them, and of neither.

    `full` is the full tower from the image.
    """

    first: StageTiming
    then: StageTiming
    full: StageTiming


def resumption(first: FirstStage, stage: Stage, search: Search) -> Resumption | None:
    """The full tower resumed from a first stage, the whole collection embedded.

    None where there is nothing to resume from; where an early exit can't be, a note says why.
    """
    if not exits_early(stage.model):
        return None
    name = first.name
    embedded, gone_on, state_bytes = [], [], 0
    try:
        resumed = ResumedStage(search.tower, stage)
        given = Giving.to(stage, search.corpus, search.tower)
        for images in image_batches(search.corpus, stage.batch_size, f"{name} resumed"):
            embeddings, states = resumed.encode_first(given(images))
            embedded.append(embeddings)
            gone_on.append(resumed.encode_states(states))
            state_bytes = states.bytes_per_image
    except TowerError as error:
        tqdm.write(f"note: {name} is not resumed: {error}")
        return None
    return Resumption(resumed, torch.cat(embedded), torch.cat(gone_on), state_bytes)


def resumed_row(
    row: Row,
    resumption: Resumption,
    search: Search,
    timing: ResumedTiming,
    options: SearchOptions,
) -> Row:
    """The row of a first stage with the full tower resumed, given its ordinary one."""
    known = search.remembered
    stages = [replace(known, images=part) for part in (resumption.first, resumption.then)]
    m = options.m[:1]
    answers, (reached,) = in_front(stages, m, search)
    stages_timed = (timing.first, timing.then, timing.full)
    first, then, full = (stage.basis(options.seconds) for stage in stages_timed)
    *encoders, full_encoder = (stage.encoder for stage in stages_timed)
    return replace(
        row,
        method=f"{row.method} resumed",
        cascade=result(answers, search.answers, search.bootstrap),
        encoder_seconds=timing.first.encoder,
        end_to_end_seconds=timing.first.end_to_end,
        lifetime_speedup=speedup_interval([first, then], options.f, full),
        query_speedup=query_speedup([first.median, then.median], m, full.median),
        f_measured=reached,
        state_bytes=resumption.state_bytes,
        resumed_seconds=then,
        encoder_speedup=speedup_interval(encoders, options.f, full_encoder),
    )
