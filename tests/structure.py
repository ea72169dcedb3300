"""The structure of the house in figures: files, floors, arrows of each folder; and what is wrong.

    python -m tests.structure [ROOT]

An arrow is an import of one file by another, wherever in the file it stands: one under
`TYPE_CHECKING` or inside of a function counts too. The floors of a folder are the files of its
longest chain of arrows. What is wrong, and ends with status 1:

- a circle: files that import each other, also by way of others;
- an arrow that runs up: to a folder that doesn't stand on a lower floor of the house;
- rooms of one folder, or a room and a file beside it, that import each other.
"""

import ast
import configparser
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

FLOORS = {
    "commands": 0,
    "corpora": 1,
    "pruning_mechanism": 1,
    "compress": 2,
    "cascade": 2,
    "evaluation": 3,
    "figures": 4,
    "demo": 5,
}
"""A file imports from its own folder or from a lower floor."""

KNOWN: dict[str, str] = {}
"""What is wrong and known, as `wrong` words it, with the reason why it is left for now."""

Arrows = Mapping[str, frozenset[str]]
"""What each file imports, by the name of its module; a package is its `__init__` file."""


@dataclass(frozen=True)
class Folder:
    """The figures of one folder; `top` are the files right in it, `__init__` left out."""

    name: str
    files: int
    lines: int
    top: int
    top_floors: int
    top_arrows: int
    floors: int


def read_arrows(root: Path) -> Arrows:
    """The arrows between all files of the packages below a directory."""
    files = {_module(root, file): file for file in _files(root)}
    return {
        name: frozenset(_imported(name, ast.parse(file.read_text()), files) - {name})
        for name, file in files.items()
    }


def wrong(arrows: Arrows) -> list[str]:
    """All circles and arrows that run up, each in words."""
    found = [f"circle: {', '.join(circle)}" for circle in circles(arrows)]
    for name, others in sorted(arrows.items()):
        for other in sorted(others):
            here, there = name.split(".")[0], other.split(".")[0]
            if here != there and FLOORS[there] >= FLOORS[here]:
                found.append(f"up: {name} imports {other}")
    for folder in {name.split(".")[0] for name in arrows}:
        for circle in circles(_between_rooms(folder, arrows)):
            found.append(f"rooms: {', '.join(circle)} import each other")
    return sorted(found)


def figures(root: Path, arrows: Arrows) -> list[Folder]:
    """The figures of each folder, from the ground floor to the roof."""
    folders = []
    for folder in sorted({name.split(".")[0] for name in arrows}, key=lambda each: FLOORS[each]):
        inside = {name for name in arrows if name.split(".")[0] == folder}
        top = {name for name in inside if name.count(".") == 1 and not _is_package(root, name)}
        folders.append(
            Folder(
                folder,
                files=len(inside),
                lines=sum(_lines(file) for file in _files(root, [folder])),
                top=len(top),
                top_floors=height(_among(top, arrows)),
                top_arrows=sum(map(len, _among(top, arrows).values())),
                floors=height(_among(inside, arrows)),
            )
        )
    return folders


def height(arrows: Arrows) -> int:
    """How many files the longest chain of arrows passes; those of a circle count as one."""
    members = {name: circle for circle in circles(arrows) for name in circle}
    heights: dict[str, int] = {}

    def of(name: str) -> int:
        group = members.get(name, (name,))
        if name not in heights:
            below = {other for each in group for other in arrows[each]} - set(group)
            found = 1 + max(map(of, below), default=0)
            heights.update(dict.fromkeys(group, found))
        return heights[name]

    return max(map(of, arrows), default=0)


def circles(arrows: Arrows) -> list[tuple[str, ...]]:
    """The groups of files that can be reached from one another (strong components of 2 or more)."""
    reached = {name: _reached(name, arrows) for name in arrows}
    groups = {
        tuple(sorted(other for other in reached[name] if name in reached[other]))
        for name in arrows
        if name in reached[name]
    }
    return sorted(groups)


def _reached(name: str, arrows: Arrows) -> set[str]:
    found: set[str] = set()
    waiting = list(arrows[name])
    while waiting:
        other = waiting.pop()
        if other not in found:
            found.add(other)
            waiting += arrows[other]
    return found


def _between_rooms(folder: str, arrows: Arrows) -> Arrows:
    """The arrows of a folder between its rooms, and between these and the files beside them."""
    rooms: defaultdict[str, set[str]] = defaultdict(set)
    for name, others in arrows.items():
        if name.split(".")[0] == folder:
            inside = [other for other in others if other.split(".")[0] == folder]
            rooms[_room(name)] |= {_room(other) for other in inside} - {_room(name)}
    return {name: frozenset(others) for name, others in rooms.items()}


def _room(name: str) -> str:
    return ".".join(name.split(".")[:2])


def _among(names: set[str], arrows: Arrows) -> Arrows:
    return {name: arrows[name] & names for name in names}


def _imported(name: str, tree: ast.Module, files: Mapping[str, Path]) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {_nearest(alias.name, files) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            source = _absolute(name, node, files[name].name == "__init__.py")
            found |= {_nearest(f"{source}.{alias.name}", files) for alias in node.names}
    return found - {""}


def _absolute(name: str, node: ast.ImportFrom, package: bool) -> str:
    """The module that a statement imports from, relative to none."""
    if not node.level:
        return node.module or ""
    parents = name.split(".")
    parents = parents[: len(parents) - node.level + package]
    return ".".join([*parents, *([node.module] if node.module else [])])


def _nearest(name: str, files: Mapping[str, Path]) -> str:
    """The module or package that defines a name; empty if the project has none."""
    while name and name not in files:
        name = name.rpartition(".")[0]
    return name


def _module(root: Path, file: Path) -> str:
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _is_package(root: Path, name: str) -> bool:
    return root.joinpath(*name.split(".")).is_dir()


def _files(root: Path, folders: Iterable[str] = tuple(FLOORS)) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((root / folder).rglob("*.py"))


def _lines(file: Path) -> int:
    return len(file.read_text().splitlines())


def packages(root: Path) -> set[str]:
    """The packages that setup.cfg installs."""
    config = configparser.ConfigParser()
    config.read(root / "setup.cfg")
    return {each.strip("*") for each in config["options.packages.find"]["include"].split()}


def show(folders: Iterable[Folder]) -> str:
    """The figures as a table."""
    rows = [
        "| folder | floor | files | lines | files at the top | floors | arrows | floors in all |"
    ]
    rows += ["| --- | --- | --- | --- | --- | --- | --- | --- |"]
    for each in folders:
        rows.append(
            f"| {each.name} | {FLOORS[each.name]} | {each.files} | {each.lines} | {each.top} "
            f"| {each.top_floors} | {each.top_arrows} | {each.floors} |"
        )
    return "\n".join(rows)


def main(root: Path) -> int:
    """Print the table and what is wrong; the exit status."""
    arrows = read_arrows(root)
    faults = wrong(arrows)
    print(show(figures(root, arrows)))
    print(f"{sum(each.startswith('circle') for each in faults)} circles of files, ", end="")
    print(f"{sum(each.startswith('rooms') for each in faults)} of rooms, ", end="")
    print(f"{sum(each.startswith('up') for each in faults)} arrows that run up")
    for fault in faults:
        print(f"{'known' if fault in KNOWN else 'wrong'}: {fault}")
    gone = sorted(set(KNOWN) - set(faults))
    for fault in gone:
        print(f"gone, take it out of KNOWN: {fault}")
    return 1 if gone or set(faults) - set(KNOWN) else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else Path.cwd()))
