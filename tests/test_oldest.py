"""What `.ci/oldest` installs is read from setup.cfg."""

import re
from pathlib import Path

import pytest

from tests.oldest import oldest

SETUP = """
[options]
install_requires =
    torch>=2.9
    tomli>=2.0; python_version < "3.11"

[options.extras_require]
test =
    pytest>=8
    torch>=2.9
"""


def test_each_dependency_is_pinned_to_its_lower_bound_once():
    pinned = ["torch==2.9", 'tomli==2.0; python_version < "3.11"']
    assert oldest(SETUP, []) == pinned
    assert oldest(SETUP, ["test"]) == [*pinned, "pytest==8"]


@pytest.mark.parametrize("line", ["torch", "torch>=2.9,<3", "torch==2.9", "torch[cuda]>=2.9"])
def test_a_dependency_without_a_plain_lower_bound_is_refused(line):
    with pytest.raises(ValueError, match=re.escape(line)):
        oldest(SETUP.replace("torch>=2.9", line, 1), [])


def test_this_projects_own_dependencies_all_have_one():
    setup = (Path(__file__).resolve().parents[1] / "setup.cfg").read_text()
    found = oldest(setup, ["test", "heif"])
    assert any(line.startswith("torch==") for line in found)
    assert len(found) == len({line.split("==")[0] for line in found})
