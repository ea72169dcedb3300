"""The collection that a command line names: made with its stages, or opened."""

from collections.abc import Sequence
from pathlib import Path

from cascade.collecting.recalling import RecalledStage
from cascade.collecting.record import FILE, Record
from cascade.collection import Collection
from cascade.inverted.fitting import Index
from cascade.resume import ResumedStage
from cascade.stages.stage import Encoder, NoTextTowerError, Stage
from cascade.stages.towers import Towers
from commands.errors import UsageError
from commands.screen import announced, console, printable
from pruning_mechanism import TowerError, read_record
from pruning_mechanism.checkpoints.checkpoint import fingerprint
from pruning_mechanism.runtimes import AUTO


def opened_or_made(
    path: Path,
    first: str | None,
    last: str | None,
    m: int | None,
    towers: Towers,
    other_base: bool = False,
    like: Path | None = None,
    resume: bool = False,
    index: Index = "auto",
) -> Collection:
    """A collection with these stages; an existing one may do without being told them.

    Args:
        path: its directory.
        first: the checkpoint of the first stage; None: there is only one stage.
        last: the checkpoint of the last stage; None: what the collection was made with.
        m: candidates handed from the first to the last.
        towers: where and how stages run; its types are those of a new collection's.
        other_base: whether the first stage may have been made from another checkpoint than the
            last.
        resume: whether the last stage goes on from the states of the first, an early exit of it.
        index: how the first stage is searched, as of `Collection.open`.
        like: another collection, whose stages and m a new one has if none are named.

    Raises:
        UsageError: there is no such collection and no stages to make one with, or they don't go
            together.
        CollectionError: it can't be opened or made, or was made with other stages.
        TowerError: a checkpoint can't be loaded.
    """
    candidates = None if m is None else [m]
    exists = (path / FILE).is_file()
    if last is None:
        if first is not None:
            raise UsageError("--first needs --last, the stage that ranks its candidates")
        known = path if exists else like
        if known is None:
            raise UsageError(
                f"{path} isn't there yet: name the checkpoints to make it with, as in --first "
                "results/joint-mac-0.07 --last openai/clip-vit-base-patch16 (--last alone searches "
                "with one stage)"
            )
        if resume and not any(stage.resumes for stage in Record.read(known).stages):
            raise UsageError(
                f"--resume has no effect with {known}, whose last stage doesn't go on from the "
                "first: name --first and --last to make another collection"
            )
        collection = Collection.open(
            known,
            m=candidates,
            batch_size=towers.batch_size,
            device=towers.device,
            index=index,
            runtime=towers.runtime,
        )
        return collection if exists else _like(collection, path, towers.batch_size, index)
    with announced("loading checkpoints"):
        stages = _stages(first, last, towers, other_base)
        encoders: list[Encoder] = [*stages]
        if resume:
            encoders[1] = ResumedStage(stages[1], stages[0])
    if towers.runtime == AUTO:
        for checkpoint, stage in zip(filter(None, (first, last)), stages, strict=True):
            console().print(f"{printable(checkpoint)} runs in {stage.runs_in}", soft_wrap=True)
    if exists:
        return Collection.open(path, encoders, candidates, towers.batch_size, index=index)
    return Collection.create(path, encoders, candidates, batch_size=towers.batch_size, index=index)


def _like(other: Collection, path: Path, batch_size: int, index: Index) -> Collection:
    """An empty collection of the same stages and m as another, which is closed."""
    with other:
        precision = other.record.precision
        return Collection.create(path, other.stages, other.m, precision, batch_size, index=index)


def _stages(first: str | None, last: str, towers: Towers, other_base: bool) -> list[Stage]:
    full = towers.load(last, place=-1)
    if first is None:
        return [full]
    return [first_stage(first, last, full, towers, other_base), full]


def first_stage(
    first: str, last: str | None, full: Stage, towers: Towers, other_base: bool = True
) -> Stage:
    """A first stage before a full tower, which lends it its text tower if it has none.

    Args:
        first: its checkpoint.
        last: the full tower's; None: it isn't known.
        full: the full tower.
        towers: where and how it runs.
        other_base: whether it may have been made from another checkpoint.

    Raises:
        UsageError: it has no text tower, and was made from another checkpoint.
        TowerError: it can't be loaded, or the text tower doesn't fit it.
    """
    try:
        return towers.load(first)
    except NoTextTowerError:
        if not other_base and last is not None and not _may_belong(first, last, full):
            raise UsageError(
                f"--first {first} was made from another checkpoint than --last {last}, so its "
                "embeddings may not fit that one's texts: name the checkpoint that it was made "
                "from, or pass --other-base"
            ) from None
        return towers.load(first, texts=full)


def first_stages(collection: Collection, checkpoints: Sequence[str], towers: Towers) -> list[Stage]:
    """First stages that a collection could have in place of its own.

    Raises:
        UsageError: its full tower goes on from the states of its first stage, one of them is its
            own or comes twice, or can't stand before this full tower.
        CollectionError: the full tower can't be loaded.
        TowerError: one of them can't be.
    """
    last = collection.stages[-1]
    record = collection.record.stages[-1]
    if record.resumes is not None:
        raise UsageError(
            f"the last stage of {collection.path} goes on from the states of the first, which "
            "can't be another one"
        )
    full = last.stage if isinstance(last, RecalledStage) else last
    if not isinstance(full, Stage):
        raise UsageError(f"the last stage of {collection.path} is no checkpoint")
    known = {collection.stages[0].name: "the first stage already"}
    loaded = []
    for checkpoint in checkpoints:
        stage = first_stage(checkpoint, record.checkpoint, full, towers, False)
        if stage.name in known:
            raise UsageError(f"--first {checkpoint} is {known[stage.name]}: name others")
        known[stage.name] = f"the same as {checkpoint}"
        loaded.append(stage)
    return loaded


def _may_belong(first: str, last: str, full: Stage) -> bool:
    """Whether a first stage was made from, or aligned to, the last, unless its record denies it."""
    try:
        record = read_record(Path(first))
    except (TowerError, OSError):
        return True
    if record is None:
        return True
    return fingerprint(last, full.model) in (record.base_fingerprint, *record.settings.values())
