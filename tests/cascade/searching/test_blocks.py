"""A ranking block by block is that of all at once, bit for bit."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade.searching.blocks import ranked_in_blocks
from cascade.searching.embeddings import Rows
from cascade.searching.ranking import rank_all
from tests.lanes import examples


@given(
    st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 12), st.integers(1, 15),
    st.sets(st.integers(0, 39)), st.booleans(), st.sampled_from([torch.float32, torch.float16]),
)  # fmt: skip
@settings(max_examples=examples(60, 600), deadline=None)
def test_it_is_that_of_all_at_once(seed, images, size, wanted, gone, coarse, dtype):
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(images, 3, generator=generator)
    queries = torch.randn(4, 3, generator=generator)
    if coarse:  # many tie
        embeddings, queries = embeddings.round(), queries.round()
    embeddings = embeddings.to(dtype)
    hidden = torch.tensor(sorted(at for at in gone if at < images), dtype=torch.int64)
    order = torch.randperm(images, generator=generator)
    blocks = [(positions, embeddings[positions]) for positions in order.split(size)]
    found = ranked_in_blocks(blocks, queries, wanted, hidden)
    expected = rank_all(embeddings, queries, wanted, gone=hidden)
    assert torch.equal(found.positions, expected.positions)
    assert torch.equal(found.scores, expected.scores)


def test_of_no_blocks_nothing_is_ranked():
    found = ranked_in_blocks([], torch.ones(2, 3), 5, torch.empty(0, dtype=torch.int64))
    assert found.positions.shape == found.scores.shape == (2, 0)


def test_rows_in_memory_are_read_in_blocks_from_a_position_on():
    embeddings = torch.randn(20_000, 2).half()
    rows = Rows.of(embeddings)
    assert torch.equal(rows.embeddings, embeddings)
    for start in (0, 1, 9000, 20_000):
        blocks = list(rows.blocks(start))
        positions = torch.cat([torch.empty(0, dtype=torch.int64), *(at for at, _ in blocks)])
        assert positions.tolist() == list(range(start, 20_000))
        for at, some in blocks:
            assert torch.equal(some, rows.at(at))
