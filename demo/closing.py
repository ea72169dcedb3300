"""What `make demo` ends with: what was found, in one sentence, and what to do next.

Stands after the report, whose numbers it says.

    python -m demo.closing --report results/demo/report.json
"""

from dataclasses import dataclass
from pathlib import Path

from commands.flags import ConfigOption, ReadPath
from commands.run import main_of
from commands.screen import console
from evaluation.command import run_command

NEXT = """\
What to do next:
  1. Compress your own checkpoint, with a folder of photographs like those you want to search:
       .venv/bin/python -m compress.joint --latency-constraint 0.15 \\
           --model openai/clip-vit-base-patch16 --corpus folder --corpus-dir photos \\
           --output results/joint
  2. Search the folder with both stages, in Python (docs/guides/search.md goes on from here):
       from pathlib import Path
       from cascade import Cascade, Stage
       full = Stage.load("openai/clip-vit-base-patch16")
       search = Cascade([Stage.load("results/joint", texts=full), full], m=[50])
       search.index(Path("photos").rglob("*.jpg"))
       print(search.search("two dogs on a beach", k=10))"""


@dataclass(frozen=True)
class ClosingOptions(ConfigOption):
    """Say in one sentence what an experiment found, and what to do next.

    Example: python -m demo.closing --report results/demo/report.json
    """

    report: ReadPath = Path("results/demo/report.json")
    """a report, as evaluation.cascade writes it"""


if __name__ == "__main__":  # here, since help needs nothing of what follows
    run_command(main_of("demo.closing"), ClosingOptions, "demo.closing")

from evaluation.reports.conclusion import conclusion
from evaluation.reports.report import open_report


def main(options: ClosingOptions) -> None:
    """Read the report and print both."""
    print_ = console().print
    print_(f"\n{conclusion(open_report(options.report))}\n", soft_wrap=True)
    print_(NEXT, soft_wrap=True)
