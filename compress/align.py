"""Alignment as a rule of its own: for a first stage that is cheap enough, but not aligned.

Every rule that leaves out tokens or layers aligns what it makes; after pruning this one does. The
mathematics is in `compress.solving.alignment`.

    python -m compress.align --model results/recover-mac-0.3
"""

from dataclasses import dataclass, replace
from functools import partial

from compress.budgets.prices import Constraint
from compress.command import run_command
from compress.errors import UserError
from compress.making.dense import Base
from compress.making.options import AlignOptions, OutputOptions
from compress.making.reduced import Reduced, ReduceRule, Step, make_reduced, run_reduce
from compress.making.smaller import Smaller, write_decisions
from compress.making.source import Source

RIDGE = Constraint("ridge")


@dataclass(frozen=True)
class AlignCommandOptions(AlignOptions, OutputOptions):
    """Align a first stage to the last stage's embeddings by ridge regression, in closed form.

    Example: python -m compress.align --model results/recover-mac-0.3
    """


def rule() -> ReduceRule:
    """Alignment and nothing else."""
    return ReduceRule(
        "align", (RIDGE,), lambda source, _setting: Step(source.model, source.processor)
    )


def align_smaller(base: Base, smaller: Smaller, options: AlignOptions) -> Reduced:
    """A pruned tower aligned to the dense one that it was made of, as if it had been saved between.

    Its record is the pruning rule's, with the alignment in its name, its chain and its seconds.
    """
    pruned = smaller.compression
    source = replace(
        Source.of(base),
        model=smaller.model.to(base.model.dtype),  # stored in half, computed as it is loaded
        chain=(f"{pruned.rule} {pruned.constraint}",),
    )
    made = make_reduced(source, rule(), RIDGE, options)
    record = replace(
        made.compression,
        rule=f"{pruned.rule}+aligned",
        constraint=pruned.constraint,
        repair=pruned.repair,
        seconds=pruned.seconds + made.compression.seconds,
        notes=(*pruned.notes, *made.compression.notes),
        settings=pruned.settings | made.compression.settings,
    )
    step = replace(made.step, files=partial(write_decisions, smaller))
    return replace(made, step=step, compression=record)


def main(options: AlignCommandOptions) -> None:
    """Solve for the projection and save."""
    if options.align == "none":
        raise UserError("compress.align --align none would change nothing")
    run_reduce(rule(), options)


if __name__ == "__main__":
    run_command(main, AlignCommandOptions, "compress.align")
