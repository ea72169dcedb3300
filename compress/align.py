"""Alignment as a rule of its own: for a first stage that is cheap enough, but not aligned.

Every rule that leaves out tokens or layers aligns what it makes; after pruning this command does.
The mathematics is in `compress.alignment`.

    python -m compress.align --model results/recover-mac-0.3
"""

from dataclasses import dataclass

from compress.budget import Constraint
from compress.command import UserError, run_command
from compress.options import AlignOptions, OutputOptions
from compress.reduced import ReduceRule, Step, run_reduce


@dataclass(frozen=True)
class AlignCommandOptions(AlignOptions, OutputOptions):
    """Align a first stage to the last stage's embeddings by ridge regression, in closed form.

    Example: python -m compress.align --model results/recover-mac-0.3
    """


def main(options: AlignCommandOptions) -> None:
    """Solve for the projection and save."""
    if options.align == "none":
        raise UserError("compress.align --align none would change nothing")
    rule = ReduceRule(
        "align",
        (Constraint("ridge"),),
        lambda source, _setting: Step(source.model, source.processor),
    )
    run_reduce(rule, options)


if __name__ == "__main__":
    run_command(main, AlignCommandOptions, "compress.align")
