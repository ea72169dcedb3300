"""The stages of an experiment, opened for the search: those that don't compare are refused.

Stands between the stages on disk and the search.
"""

from contextlib import suppress

from cascade import Stage
from cascade.towers import Towers
from compress.errors import UserError
from evaluation.experiment.first_stages import KeptStage, belongs_to
from evaluation.options import SearchOptions
from pruning_mechanism import TowerError, is_smaller
from pruning_mechanism.checkpoints.checkpoint import fingerprint


def open_stage(
    made: KeptStage,
    flag: str,
    tower: Stage,
    options: SearchOptions,
    any_base: bool,
    towers: Towers,
) -> Stage:
    """A stage that is searched with the full tower's texts.

    Args:
        made: the stage.
        flag: that named it.
        tower: the full tower, whose text tower it borrows if it has none.
        options: of the experiment; `model` names the full tower.
        any_base: whether it may have been made from another checkpoint than the full tower.
        towers: where and how it runs.

    Raises:
        UserError: it can't be searched with the full tower's texts.
    """
    stage = towers.load(str(made.directory), texts=tower, attention=options.attends_by)
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


def _fits(made: KeptStage, tower: Stage, options: SearchOptions) -> bool:
    """Whether a stage is in the full tower's space, as far as that can be known.

    It is if its record says so, or if its own texts are embedded as the full tower's are.
    """
    recorded = belongs_to(made.directory, fingerprint(options.model, tower.model))
    if recorded:
        return True
    with suppress(TowerError):  # a vision tower alone, or nothing to tokenise texts with
        return Stage.load(made.directory, options.device).text_name == tower.text_name
    return recorded is None
