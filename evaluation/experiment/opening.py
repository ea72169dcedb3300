"""The stages of an experiment, opened as they run: those that don't compare are refused.

Stands between the stages on disk and the search.
"""

from collections.abc import Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import torch

from cascade import Stage
from cascade.stages.towers import Towers
from compress.errors import UserError
from compress.making.source import check_text_model
from evaluation.experiment.first_stages import KeptStage, belongs_to
from evaluation.measuring.settings import STORED, Loading, SettingsError, loadings
from evaluation.options import RunningOptions
from pruning_mechanism import TowerError, is_smaller
from pruning_mechanism.checkpoints.checkpoint import fingerprint


@dataclass(frozen=True)
class Ended:
    """The full tower behind first stages.

    `label`: what its user asked for; "": it is the one that all is measured against.
    """

    stage: Stage
    label: str = ""


@dataclass(frozen=True)
class Cascades:
    """What stands one behind the other, opened: each first stage before each last one.

    Attributes:
        first: with what they were asked for.
        between: in the middle, cheap to expensive.
        last: the full tower as it will run, in each way.
    """

    first: tuple[tuple[KeptStage, Stage], ...]
    between: tuple[tuple[KeptStage, Stage], ...]
    last: tuple[Ended, ...]


def as_run(stage: Stage) -> Hashable:
    """What tells apart what stages take: in float32 one has the same name in all runtimes."""
    return stage.name, stage.runs_in.runtime, stage.runs_in.dtype


def check_ways(options: RunningOptions) -> None:
    """Refuse ways to run that can't be read, or that no stage can be loaded in here.

    Raises:
        UserError: there is one.
    """
    _first_ways(options)
    _last_ways(options)


def full_tower(options: RunningOptions, text_model: str | None) -> Stage:
    """What all is measured against: as --runtime says, or plain where --last-as says more.

    Args:
        options: of the experiment.
        text_model: the checkpoint that lends it a text tower, if one does.

    Raises:
        TowerError: it can't be loaded.
        UserError: the text tower isn't this one's.
    """
    texts = Stage.load(text_model, options.device) if text_model else None
    loading = Loading(_towers(options))
    if options.tells_last:
        loading = Loading(replace(_towers(options), runtime="torch", dtypes=("float32",)), "full")
    tower = loading.load(options.model, texts=texts, attention=options.attends_by)
    check_text_model(text_model, tower.model, options.model)
    return tower


def opened_first(
    stages: Sequence[KeptStage], tower: Stage, options: RunningOptions, any_base: bool
) -> list[tuple[KeptStage, Stage]]:
    """First stages, each in all ways that --first-as names; errors as of `open_stage`."""
    return [
        (
            replace(made, label=loading.label),
            open_stage(made, "--stage", tower, options, any_base, loading),
        )
        for made in stages
        for loading in _first_ways(options)
    ]


def opened_middle(
    stages: Sequence[KeptStage], tower: Stage, options: RunningOptions, any_base: bool
) -> list[tuple[KeptStage, Stage]]:
    """Middle stages; errors as of `open_stage`."""
    loading = Loading(_towers(options))
    return [
        (made, open_stage(made, "--middle", tower, options, any_base, loading)) for made in stages
    ]


def opened_last(tower: Stage, options: RunningOptions) -> list[Ended]:
    """The full tower in all ways that --last-as names, each once.

    Args:
        tower: the one that all is measured against, which is one of them if it runs so.
        options: of the experiment.

    Raises:
        TowerError: it can't be loaded so.
    """
    if not options.tells_last:
        return [Ended(tower)]
    found: dict[Hashable, Ended] = {}
    for loading in _last_ways(options):
        # a vision tower alone does: queries are embedded once, by the one measured against
        stage = loading.load(options.model, without_texts=True, attention=options.attends_by)
        own = as_run(stage)
        plain = own == as_run(tower)
        found.setdefault(own, Ended(tower) if plain else Ended(stage, loading.label or "stored"))
    return list(found.values())


def _towers(options: RunningOptions) -> Towers:
    return Towers(options.device, options.runtime, options.batch_size)


def _first_ways(options: RunningOptions) -> tuple[Loading, ...]:
    dtypes = () if options.dtype == "float32" else (options.dtype,)
    return _ways("--first-as", options.first_as, replace(_towers(options), dtypes=dtypes), options)


def _last_ways(options: RunningOptions) -> tuple[Loading, ...]:
    return _ways("--last-as", options.last_as, _towers(options), options)


def _ways(
    flag: str, texts: Sequence[str], towers: Towers, options: RunningOptions
) -> tuple[Loading, ...]:
    try:
        return loadings(texts, towers, options.attends_by)
    except SettingsError as error:
        said = str(error) if list(texts) == [STORED] else f"{flag}: {error}"
        raise UserError(said) from error


def open_stage(
    made: KeptStage,
    flag: str,
    tower: Stage,
    options: RunningOptions,
    any_base: bool,
    loading: Loading,
) -> Stage:
    """A stage that is searched with the full tower's texts.

    Args:
        made: the stage.
        flag: that named it.
        tower: the full tower, whose text tower it borrows if it has none.
        options: of the experiment; `model` names the full tower.
        any_base: whether it may have been made from another checkpoint than the full tower.
        loading: how it is loaded.

    Raises:
        UserError: it can't be searched with the full tower's texts.
    """
    stage = loading.load(str(made.directory), texts=tower, attention=options.attends_by)
    if hasattr(stage.model, "text_model") and is_smaller(stage.model, "text"):
        raise UserError(
            f"{flag} {made.directory}: its text tower is smaller too, but first stages are "
            "searched with the full text tower"
        )
    if stage.dimension != tower.dimension:
        raise UserError(
            f"{flag} {made.directory} embeds into {stage.dimension} dimensions, the full tower "
            f"into {tower.dimension}"
        )
    if not any_base and not _fits(made, tower, options):
        raise UserError(
            f"{flag} {made.directory} was made from another checkpoint than --model "
            f"{options.model}, so their embeddings may not compare: name the checkpoint that it "
            "was made from, or pass --other-base"
        )
    return stage


def _fits(made: KeptStage, tower: Stage, options: RunningOptions) -> bool:
    """Whether a stage is in the full tower's space, as far as that can be known.

    It is if its record says so, or if its own texts are embedded as the full tower's are.
    """
    recorded = belongs_to(made.directory, fingerprint(options.model, tower.model))
    if recorded:
        return True
    with suppress(TowerError):  # a vision tower alone, or nothing to tokenise texts with
        # stored in half precision its texts have another name on a GPU, unless float32 is asked for
        exact = "float32" if tower.dtype == torch.float32 else None
        own = Stage.load(made.directory, options.device, runtime="torch", dtype=exact)
        return own.text_name == tower.text_name
    return recorded is None
