"""A collection that migrates."""

import pytest

from tests.cascade.known import numbered, on_disk
from tests.cascade.migrating.migrator import IMAGES, M, stages


@pytest.fixture
def collection(tmp_path):
    """One of whose images some were removed, replaced, or skipped, and some promoted."""
    made = on_disk(tmp_path / "known", stages(), M)
    made.add(numbered(range(IMAGES - 10)))
    made.remove(["image 7"])
    made.add(numbered([8], size=1))
    made.add(numbered([IMAGES - 1], reason="it is broken"))
    made.search_many(["1", "2"], 5)
    made.flush()
    yield made
    made.close()
