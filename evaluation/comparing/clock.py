"""Parameters, MACs and milliseconds of both sides of models, all of them timed in turn."""

from collections.abc import Sequence
from itertools import cycle, islice

from evaluation.comparing.models import Compared
from evaluation.measuring.clock import StageTiming, Work, encoding, reading, work_timings
from evaluation.reports.latency.report import Side, Timed
from pruning_mechanism import parameters


def image_sides(
    models: Sequence[Compared],
    files: Sequence[bytes],
    batches: Sequence[int],
    repetitions: int,
    device: str,
) -> list[Side]:
    """The image side of each model.

    Args:
        models: at least one.
        files: the bytes of image files, at least one; they come again in a batch of more.
        batches: images embedded at once, each timed by itself.
        repetitions: timed turns.
        device: where the models run.
    """
    timed: list[list[Timed]] = [[] for _ in models]
    for batch in batches:
        sources = list(islice(cycle(files), batch))
        works = [encoding(model.stage)(sources) for model in models]
        _append(timed, works, batch, repetitions, device, "image")
    return [
        Side(parameters(model.stage.model), tuple(found))
        for model, found in zip(models, timed, strict=True)
    ]


def text_sides(
    models: Sequence[Compared],
    texts: Sequence[str],
    batches: Sequence[int],
    repetitions: int,
    device: str,
) -> list[Side | None]:
    """The text side of each model, None of a vision tower alone.

    Args:
        models: at least one.
        texts: at least one; they come again in a batch of more.
        batches: texts embedded at once, each timed by itself.
        repetitions: timed turns.
        device: where the models run.
    """
    able = [model for model in models if model.stage.text_modules]
    timed: list[list[Timed]] = [[] for _ in able]
    for batch in batches if able else ():
        several = list(islice(cycle(texts), batch))
        works = [reading(model.stage, several) for model in able]
        _append(timed, works, batch, repetitions, device, "text")
    sides = {
        id(model): Side(_text_parameters(model), tuple(found))
        for model, found in zip(able, timed, strict=True)
    }
    return [sides.get(id(model)) for model in models]


def _append(
    timed: Sequence[list[Timed]],
    works: Sequence[Work],
    batch: int,
    repetitions: int,
    device: str,
    what: str,
) -> None:
    """Time all works in turn, and note what each took."""
    title = f"seconds of an {what}" if what == "image" else f"seconds of a {what}"
    clock: dict[int, StageTiming] = work_timings(
        dict(enumerate(works)), batch, repetitions, device, f"{title}, batch {batch}"
    )
    for place, found in clock.items():
        timed[place].append(Timed(batch, found.encoder, found.end_to_end))


def _text_parameters(model: Compared) -> int:
    """Of the text tower and its projection, also of one that can't be pruned."""
    return sum(
        parameter.numel()
        for module in model.stage.text_modules
        for parameter in module.parameters()
    )
