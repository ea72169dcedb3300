"""Alignment as a rule of its own: for a first stage that is cheap enough, but not aligned.

Rules that leave out tokens or layers align what they make unless told not to, pruning rules if they
are told to; this one does nothing else. The mathematics is in `compress.solving.alignment`. What it
makes may read less of its files than what it is made of, be it aligned to that or not.

    python -m compress.align --model results/recover-mac-0.3
    python -m compress.align --reads thumbnail
"""

from dataclasses import dataclass

from commands.run import main_of
from compress.budgets.settings import Setting
from compress.choices import Align
from compress.command import run_command
from compress.errors import UserError
from compress.options import AlignedTokenOptions, OutputOptions


@dataclass(frozen=True)
class AlignCommandOptions(AlignedTokenOptions, OutputOptions):
    """Align a first stage to the full tower's embeddings by ridge regression, in closed form.

    Example: python -m compress.align --model results/recover-mac-0.3
    """

    def check(self) -> None:
        """Raise `UserError` if nothing would be done."""
        super().check()
        if self.align == "none" and self.reads is None:
            raise UserError("compress.align --align none would change nothing without --reads")


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("compress.align"), AlignCommandOptions, "compress.align")

from compress.making.rule import Rule, Step
from compress.making.source import Needs, Source
from compress.rule_command import run_rule


def rule(align: Align = "ridge") -> Rule:
    """Alignment and nothing else, or only what is read of files."""

    def step(source: Source, _asked: None) -> Step:
        return Step(source.model, source.processor)

    return Rule("align", {Setting(align): None}, step, needs=Needs(layers=False))


def main(options: AlignCommandOptions) -> None:
    """Solve for the projection and save."""
    run_rule(rule(options.align), options)
