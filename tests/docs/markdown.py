"""The pages that people read, and what is in them: blocks, links, headings, command lines."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WRITTEN_BY_COMMANDS = ROOT / "docs" / "reports"
BUILT = ROOT / "docs" / "_build"

_FENCE = re.compile(
    r"^(?P<indent> *)(?P<fence>```+)(?P<info>[^\n]*)\n(?P<text>.*?)^(?P=indent)(?P=fence)\s*$",
    re.MULTILINE | re.DOTALL,
)
_LINK = re.compile(r"\[[^\]\[]*(?:\[[^\]]*\][^\]\[]*)*\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(?P<text>.+?) *$", re.MULTILINE)
_INLINE = re.compile(r"`(?P<code>(?:python -m|make) [^`]+)`")
_FILE = re.compile(
    r"`(?P<path>(?:cascade|commands|compress|configs|corpora|demo|docs|evaluation|figures"
    r"|pruning_mechanism|tests|\.ci)/[\w./-]*)`"
)
_EXPAND = """
python() { printf '%s\\0' python "$@" $'\\n'; }
make() { printf '%s\\0' make "$@" $'\\n'; }
command_not_found_handle() { :; }
"""


@dataclass(frozen=True)
class Block:
    """A fenced block: its first word (the language), its text, and the line that it begins on."""

    language: str
    text: str
    line: int


def pages() -> list[Path]:
    """Every page that is written by hand."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "demo").rglob("*.md")]
    made = (WRITTEN_BY_COMMANDS, BUILT)
    return sorted(page for page in found if not any(map(page.is_relative_to, made)))


def name(page: Path) -> str:
    """A page as a test is called by it."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[Block]:
    """The blocks of a language, in the order of the page."""
    text = page.read_text()
    return [
        Block(language, found["text"], text.count("\n", 0, found.start("text")) + 1)
        for found in _FENCE.finditer(text)
        if found["info"].split()[:1] == [language]
    ]


def links(page: Path) -> list[str]:
    """The targets of a page's links and pictures that are no address elsewhere."""
    prose = _FENCE.sub("", page.read_text())
    targets = [found["target"] for found in _LINK.finditer(prose)]
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def named_files(page: Path) -> list[str]:
    """The files and folders of the project that a page names without linking to them."""
    made = ("docs/_build", "demo/training")
    paths = [found["path"] for found in _FILE.finditer(page.read_text())]
    return [path for path in paths if not path.startswith(made)]


def anchors(page: Path) -> set[str]:
    """What a link to a heading of a page is called, as GitHub and MyST make it."""
    prose = _FENCE.sub("", page.read_text())
    texts = [found["text"].lower() for found in _HEADING.finditer(prose)]
    return {re.sub(r"[^\w\- ]", "", text).replace(" ", "-") for text in texts}


def commands(script: str, variables: dict[str, str]) -> list[list[str]]:
    """What a shell script would give to `python` and `make`: their names and arguments.

    The shell expands loops, braces and variables. It is a restricted one without a search path, so
    nothing else in the script does anything.
    """
    ran = subprocess.run(
        ["/bin/bash", "--noprofile", "--norc", "-r", "-c", _EXPAND + script],
        cwd=ROOT,
        env={"PATH": "", **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = ran.stdout.split("\n\0")
    return [line.rstrip("\0").split("\0") for line in lines if line]


def inline_commands(text: str) -> list[str]:
    """Command lines that stand in a sentence or a table."""
    return [found["code"] for found in _INLINE.finditer(_FENCE.sub("", text))]
