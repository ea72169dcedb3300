"""The oldest dependencies that setup.cfg allows, as requirements for pip.

    python -m tests.oldest [EXTRA ...]

prints one line for each: `torch==2.9` for `torch>=2.9`. `.ci/oldest` installs and tests them.
"""

import configparser
import re
import sys
from pathlib import Path

_LOWER_BOUND = re.compile(r"(?P<name>[\w.-]+)>=(?P<version>[\d.]+)(?P<marker>\s*;.*)?")


def oldest(setup: str, extras: list[str]) -> list[str]:
    """Each dependency of a setup.cfg, and of some of its extras, at its lower bound.

    Raises:
        ValueError: a dependency has no lower bound, or another bound too.
    """
    config = configparser.ConfigParser()
    config.read_string(setup)
    lines = config["options"]["install_requires"].split("\n")
    for extra in extras:
        lines += config["options.extras_require"][extra].split("\n")
    found = []
    for line in filter(None, map(str.strip, lines)):
        match = _LOWER_BOUND.fullmatch(line)
        if match is None:
            raise ValueError(f"setup.cfg: {line!r} is not of the form NAME>=VERSION")
        found.append(f"{match['name']}=={match['version']}{match['marker'] or ''}")
    return list(dict.fromkeys(found))


if __name__ == "__main__":
    print("\n".join(oldest(Path("setup.cfg").read_text(), sys.argv[1:])))
