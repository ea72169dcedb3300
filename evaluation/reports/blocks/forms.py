"""Blocks of rows as Markdown and as LaTeX: this module formats and computes nothing.

Both show the same cells. A column in which all rows of a block say the same is left out and said
below it, and so is the full tower.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from evaluation.reports.blocks.block import Block, Line
from evaluation.reports.report import handed_on
from evaluation.reports.row import ARROW, Middle, Row
from evaluation.reports.table import NOTHING, github_table, magnitude, three_digits
from evaluation.reports.ways import Way, against, is_usual, runs_in, usual

_ESCAPED = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "[": "{[}",  # after the end of a row it would be a distance
    "→": r"$\rightarrow$",
    "Δ": r"$\Delta$",
    NOTHING: "--",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}
_INTERVAL = re.compile(r"(?P<value>[+-]?[\d.]+) \[(?P<low>[+-]?[\d.]+), (?P<high>[+-]?[\d.]+)\]")


@dataclass(frozen=True)
class Column:
    """A column's header, what it shows of a row, and whether that is a number.

    A column with a `remark` says, where all rows agree, that one thing below the table instead.
    """

    header: str
    cell: Callable[[Line], str]
    numeric: bool = True
    remark: str = ""


def markdown(blocks: Sequence[Block]) -> str:
    """A heading, a GitHub table and what it is of, for each block; ends with a newline."""
    return "\n".join(map(_markdown_block, blocks))


def _markdown_block(block: Block) -> str:
    columns, remarks = _columns(block)
    texts = [place for place, column in enumerate(columns) if not column.numeric]
    rows = [[column.cell(line) for column in columns] for line in block.lines]
    shown = github_table([column.header for column in columns], rows, texts)
    above, below = "\n".join(_full_tower(block)), "\n".join(_explained(block, remarks))
    return f"## {_title(block)}\n\n{above}\n\n{shown}\n{below}\n"


def latex(blocks: Sequence[Block]) -> str:
    """A longtable for each block, which breaks over pages; ends with a newline."""
    needs = "% needs \\usepackage{booktabs} and \\usepackage{longtable}\n"
    return needs + "\n".join(map(_latex_block, blocks))


def _latex_block(block: Block) -> str:
    columns, remarks = _columns(block)
    caption = " ".join((f"{_title(block)}.", *_full_tower(block), *_explained(block, remarks)))
    header = [_latex_header(column) for column in columns]
    lines = [
        "{\\scriptsize\\setlength{\\tabcolsep}{3pt}",
        f"\\begin{{longtable}}{{{''.join('r' if each.numeric else 'l' for each in columns)}}}",
        f"\\caption{{{_escaped(caption)}}} \\\\",
        "\\toprule",
        f"{' & '.join(header)} \\\\",
        "\\midrule",
        "\\endhead",
        "\\bottomrule",
        "\\endfoot",
    ]
    before = None
    for line in block.lines:
        if before not in (None, line.row.method):
            lines.append("\\addlinespace")
        lines.append(f"{' & '.join(_latex_cell(column, line) for column in columns)} \\\\")
        before = line.row.method
    return "\n".join((*lines, "\\end{longtable}", "}")) + "\n"


def _latex_header(column: Column) -> str:
    """Of numbers, which are narrow, in two lines."""
    words, space, last = column.header.rpartition(" ")
    if not (column.numeric and space):
        return _escaped(column.header)
    return f"\\shortstack[r]{{{_escaped(words)}\\\\{_escaped(last)}}}"


def _latex_cell(column: Column, line: Line) -> str:
    """A cell; of an interval the bounds stand below and above the value, which takes less room."""
    cell = column.cell(line)
    if found := _INTERVAL.fullmatch(cell):
        return "${value}_{{{low}}}^{{{high}}}$".format(**found.groupdict())
    return _escaped(cell)


def _escaped(text: str) -> str:
    return "".join(_ESCAPED.get(character, character) for character in " ".join(text.split()))


def _columns(block: Block) -> tuple[list[Column], list[str]]:
    """The columns of a block, and remarks in place of those that always say the same."""
    beside = block.references[0].report.seconds_basis == "end to end"
    columns = [
        Column("method", lambda line: line.row.method, numeric=False),
        Column("constraint", lambda line: line.row.constraint, numeric=False),
        *([Column("report", lambda line: line.name, False)] if len(block.references) > 1 else []),
        Column("m", lambda line: handed_on(line.m), remark="m = {}"),
        *map(_change, block.ks),
        Column("agreement@10", lambda line: _agreement(line.row)),
        Column("tower MACs", lambda line: ARROW.join(map(_macs, line.stages))),
        *_ways(block),
        Column("share of seconds", lambda line: ARROW.join(map(_percent, line.shares))),
        *([Column("of encoder seconds", _encoder_shares)] if beside else []),
        Column("lifetime speedup", lambda line: f"{line.row.lifetime_speedup.value:.2f}"),
        *([Column("encoder only", _encoder_speedup)] if beside else []),
        Column("per-query speedup", lambda line: _number(line.row.query_speedup, ".2f")),
        Column("f", lambda line: _number(line.row.f_assumed, "g"), remark="f = {}"),
    ]
    shown, remarks = [], []
    for column in columns:
        cells = {column.cell(line) for line in block.lines}
        if column.remark and len(cells) == 1:
            remarks.append(column.remark.format(cells.pop()))
        else:
            shown.append(column)
    return shown, remarks


def _change(k: int) -> Column:
    def cell(line: Line) -> str:
        if line.row.cascade is None:
            return NOTHING
        change = line.row.cascade.difference[k]
        return f"{_signed(change.value)} [{_signed(change.low)}, {_signed(change.high)}]"

    return Column(f"ΔR@{k}", cell)


def _ways(block: Block) -> list[Column]:
    """What stages read and run in, where that isn't what they do if they are told nothing."""
    columns = []
    if any(stage.reads != "full" for line in block.lines for stage in line.ways):
        columns.append(Column("reads", lambda line: ARROW.join(map(_reads, line.ways)), False))
    if not all(is_usual(stage) for line in block.lines for stage in line.ways):
        columns.append(Column("runs in", lambda line: ARROW.join(map(runs_in, line.ways)), False))
    return columns


def _reads(stage: Way) -> str:
    return stage.reads


def _encoder_shares(line: Line) -> str:
    return ARROW.join(map(_percent, line.encoder_shares))


def _encoder_speedup(line: Line) -> str:
    found = line.report.speedup(line.row, "encoder")
    return NOTHING if found is None else f"{found.value:.2f}"


def _agreement(row: Row) -> str:
    return NOTHING if row.cascade is None else f"{row.cascade.agreement.value:.1f}"


def _signed(points: float) -> str:
    """Percentage points with a sign, but for those that round to nothing."""
    text = f"{points:+.1f}"
    return text[1:] if float(text) == 0 else text


def _macs(stage: Row | Middle) -> str:
    return magnitude(stage.tower_macs)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _number(value: float | None, form: str) -> str:
    return NOTHING if value is None else f"{value:{form}}"


def _title(block: Block) -> str:
    return block.references[0].report.title


def _explained(block: Block, remarks: Sequence[str]) -> list[str]:
    """What the columns are, what the seconds are of."""
    reports = [line.report for line in block.references]
    machines = dict.fromkeys(report.machine.summary for report in reports)
    captions = "all captions" if reports[0].captions == "all" else "the first caption"
    several = any(line.row.middle for line in block.lines)
    each = ", stage by stage where there are several before the full tower" if several else ""
    return [
        "ΔR@k: the cascade's Recall@k less the full tower's, in percentage points, with its 95 % "
        f"bootstrap interval over images; queries: {captions} of each image.",
        "agreement@10: how many of the full tower's own top 10 the cascade finds, in percent.",
        f"MACs and seconds: of the first stage{each}; seconds as a share of the full tower's, "
        f"{reports[0].seconds_of}, on {'; '.join(machines)}.",
        *_running(block),
        *([f"{', '.join(remarks)}."] if remarks else []),
    ]


def _running(block: Block) -> list[str]:
    """How stages run that no column says, and what is measured against what."""
    said = usual([stage for line in block.lines for stage in line.ways])
    if any(line.row.last for line in block.lines):
        towers = dict.fromkeys(against(line.report.reference) for line in block.references)
        said.append(f"Recall, agreement, shares and speedups are against {'; '.join(towers)}.")
    return said


def _full_tower(block: Block) -> list[str]:
    """What the full tower reaches, and a warning where its reports don't agree."""
    ks = "/".join(map(str, block.ks))
    reached = {line.name: _recalls(block, line) for line in block.references}
    macs = magnitude(block.references[0].row.tower_macs)
    medians = [line.report.seconds(line.row).median for line in block.references]
    taken = _milliseconds(medians)
    if block.references[0].report.seconds_basis == "end to end":
        encoders = [line.row.encoder_seconds.median for line in block.references]
        taken += f" ms an image ({_milliseconds(encoders)} ms in its encoder)"
    else:
        taken += " ms an image"
    first, *others = dict.fromkeys(reached.values())
    sentences = [f"Full tower: R@{ks} {first} %, {macs} MACs, {taken}."]
    if others:
        differing = "; ".join(f"{name} {recalls}" for name, recalls in reached.items())
        sentences.append(
            f"The reports disagree on the full tower's R@{ks}, so they may be of different images "
            f"or weights under one name: {differing}."
        )
    return sentences


def _milliseconds(seconds: Sequence[float]) -> str:
    """From the least to the most."""
    bounds = min(seconds), max(seconds)
    return " to ".join(dict.fromkeys(three_digits(1000 * t) for t in bounds))


def _recalls(block: Block, line: Line) -> str:
    return "/".join(f"{line.row.alone.recall[k].value:.1f}" for k in block.ks)
