"""The full table of the bi-encoder cascade paper (arXiv 2303.15595), from reports.

For each first stage how Recall@1, 5 and 10 of the cascade change against the full tower, its MACs
and seconds, and the lifetime and per-query speedup. Every full tower and collection has a block of
its own.

    python -m evaluation.table --report docs/reports/*.json --format latex --output table.tex
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from commands.errors import UsageError
from commands.flags import ConfigOption, ReadPath, Unread, WrittenPath
from commands.run import main_of
from commands.screen import printable
from commands.writing.files import check_files, write_files
from evaluation.command import run_command
from evaluation.reports.blocks import forms as blocks_forms
from evaluation.reports.blocks import values as blocks_values
from evaluation.reports.blocks.block import blocks_of
from evaluation.reports.report import names_of, open_report

Format = Literal["markdown", "latex", "csv"]
FORMS = {
    "markdown": blocks_forms.markdown,
    "latex": blocks_forms.latex,
    "csv": blocks_values.comma_separated,
}


@dataclass(frozen=True)
class TableOptions(ConfigOption):
    """Put reports into the paper's table: changes in recall, speedups, MACs, seconds.

    Example: python -m evaluation.table --report docs/reports/*.json --format latex
    """

    report: tuple[ReadPath, ...] = (Path("results/cascade/report.json"),)
    """one or more reports, as evaluation.cascade writes them"""
    methods: tuple[str, ...] = ()
    """show these methods only, in this order (default: all)"""
    format: Format = "markdown"
    """what to write"""
    output: WrittenPath | None = None
    """file to write (default: the screen)"""
    overwrite: bool = False
    """replace a file that is there already"""

    unread: ClassVar = (
        Unread(("overwrite",), lambda options: options.output is None, "no --output"),
    )

    def check(self) -> None:
        """Raise `UsageError` if no report is named, or one is to be written over."""
        super().check()
        if not self.report:
            raise UsageError("name at least one --report")
        if self.output and self.output.resolve() in {path.resolve() for path in self.report}:
            raise UsageError(f"{self.output} is a --report, which is read: choose another --output")


def main(options: TableOptions) -> None:
    """Read the reports, and write or show the table."""
    output = options.output
    if output:
        check_files(output.parent, [output.name], options.overwrite)
    paths = list(dict.fromkeys(options.report))
    reports = [open_report(path) for path in paths]
    blocks = blocks_of(reports, names_of(paths), options.methods)
    text = FORMS[options.format](blocks).encode("utf-8", "backslashreplace")
    if output:
        write_files(output.parent, {output.name: text}, options.overwrite)
        print(f"wrote {printable(output)}")
    else:
        print(text.decode(), end="")


if __name__ == "__main__":
    run_command(main_of("evaluation.table"), TableOptions, "evaluation.table")
