"""Text towers that rank tokens: what the definition says of each text, whatever its batch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from cascade import Cascade, Stage
from pruning_mechanism import Mask, Reduction, Tower, TowerError, load, macs, prune, reduce
from pruning_mechanism.modeling.text_ranking import TextRanking
from pruning_mechanism.modeling.tokens import ends_of, keep_ranked_of_texts
from tests.conftest import tiny_clip, tiny_processor
from tests.lanes import examples
from tests.pruning_mechanism.conftest import (
    CONTEXT,
    END,
    embeddings,
    random_slim_mask,
    tiny_inputs,
    tiny_model,
)

SHARES = (0.8, 0.5, 0.4)
TEXTS = tiny_inputs("text", 24, seed=1)["input_ids"]
CAUSAL = pytest.mark.parametrize("family", ["clip", "metaclip_2"])


def ranked(family: str, shares=SHARES):
    return reduce(tiny_model(family), Reduction(ranked_share_per_layer=shares))


def length(text: Tensor) -> int:
    """Of a text with its end."""
    return text.tolist().index(END) + 1


@torch.no_grad()
def by_definition(model, text: Tensor, shares=SHARES) -> Tensor:
    """The embedding of one text [n] by a dense model, in plain loops over its tokens."""
    tower = Tower.of(model, "text")
    hidden = tower.root.embeddings(input_ids=text[None])[0]
    sizes = torch.ones(len(hidden), dtype=hidden.dtype)
    for layer, share in zip(tower.layers, shares, strict=True):
        normed, attention = layer.layer_norm1(hidden), layer.self_attn
        rows, heads = [], attention.num_heads
        split = [
            projection(normed).unflatten(-1, (heads, -1))
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
        ]
        for place in range(len(hidden)):
            of_heads, paid = [], 0
            for head in range(heads):
                query, keys, values = (part[:, head] for part in split)
                logits = keys[: place + 1] @ query[place] * attention.scale
                weights = sizes[: place + 1] * logits.exp()
                weights = weights / weights.sum()
                of_heads.append(weights @ values[: place + 1])
                paid = paid + weights / heads
            rows.append(attention.out_proj(torch.cat(of_heads)))
        hidden = hidden + torch.stack(rows)
        inner = list(range(1, len(hidden) - 1))  # `paid` is what the end attends to
        best = sorted(inner, key=lambda place: -paid[place])[: max(1, round(share * len(inner)))]
        others = sorted(set(inner) - set(best))
        if others:
            shares_of = paid[others] / paid[others].sum()
            hidden[others[-1]] = shares_of @ hidden[others]
            sizes[others[-1]] = sizes[others].sum()
            stay = [place for place in range(len(hidden)) if place not in others[:-1]]
            hidden, sizes = hidden[stay], sizes[stay]
        hidden = hidden + layer.mlp(layer.layer_norm2(hidden))
    return tower.final(tower.root.final_layer_norm(hidden[-1]))


@CAUSAL
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_padded_batch_is_what_the_definition_says_of_each_text(family, attention):
    model = ranked(family).double()
    model.set_attn_implementation(attention)
    found = Tower.of(model, "text").embeddings({"input_ids": TEXTS})
    plain = tiny_model(family).double()
    for text, embedding in zip(TEXTS, found, strict=True):
        expected = by_definition(plain, text[: length(text)])
        torch.testing.assert_close(embedding, expected, atol=1e-6, rtol=1e-6)
    assert (found - Tower.of(plain, "text").embeddings({"input_ids": TEXTS})).abs().max() > 0.05


def pruned_and_ranked():
    """A layer without heads, and one without neurons, in a tower that ranks in both."""
    return reduce(
        prune(tiny_model("clip"), random_slim_mask(1), "text"),
        Reduction(ranked_share_per_layer=SHARES),
    )


@torch.no_grad()
@pytest.mark.parametrize("make", [lambda: ranked("clip"), pruned_and_ranked])
@pytest.mark.parametrize("masked", [False, True])
def test_an_embedding_does_not_depend_on_the_batch(make, masked):
    tower = Tower.of(make(), "text")

    def embedded(texts):
        mask = {"attention_mask": (texts != END).long()} if masked else {}
        if masked:  # the end itself is seen
            mask["attention_mask"][torch.arange(len(texts)), [length(row) - 1 for row in texts]] = 1
        return tower.embeddings({"input_ids": texts} | mask)

    alone = torch.cat([embedded(text[None, : length(text)]) for text in TEXTS])
    torch.testing.assert_close(embedded(TEXTS), alone, atol=1e-5, rtol=1e-5)


MASK = random_slim_mask(2)


@CAUSAL
@pytest.mark.parametrize("make", [tiny_model, lambda family: prune(tiny_model(family), MASK)])
def test_where_every_token_goes_on_the_tower_is_the_dense_one(family, make):
    model = make(family)
    all_of_them = reduce(model, Reduction(ranked_share_per_layer=(1.0, 1.0, 1)))
    for tower in ("text", "vision"):
        assert torch.equal(embeddings(all_of_them, tower), embeddings(model, tower))
        assert macs(all_of_them, tower) == macs(model, tower)


def test_the_highest_token_ends_a_text_where_early_configurations_say_2():
    texts = torch.tensor([[0, 5, 7, 9, 3, 21, 2, 2], [0, 8, 4, 21, 2, 2, 2, 2]])
    for family, ends in (("clip", [5, 3]), ("metaclip_2", [6, 4])):
        model = tiny_model(family)
        model.config.text_config.eos_token_id = 2
        made = reduce(model, Reduction(ranked_share_per_layer=SHARES))
        assert made.text_model._sizes(texts, None).sum(1).tolist() == [end + 1 for end in ends]


@given(st.floats(0.001, 1), st.integers(1, 90))
@settings(max_examples=examples(60, 1000), deadline=None)
def test_how_many_are_left_is_a_share_of_a_texts_own_tokens(share, tokens):
    rule = TextRanking([share])
    inner = max(0, tokens - 2)
    kept = min(inner, max(1, round(share * inner)))
    assert rule.left(0, tokens) == tokens - inner + kept + min(1, inner - kept)
    assert rule.left(0, tokens) <= rule.left(0, tokens + 1)  # so the longest of a batch has most


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.floats(0.1, 1), st.integers(0, 99))
@settings(max_examples=examples(40, 400), deadline=None)
def test_tokens_stay_in_order_and_none_tells_of_a_later_one(lengths, share, seed):
    most, rule = max(lengths), TextRanking([share])
    places = torch.arange(most)
    sizes = (places < torch.tensor(lengths)[:, None]).float()
    ranks = torch.rand(len(lengths), most, generator=torch.Generator().manual_seed(seed))
    keep = torch.tensor([rule._keep(0, max(0, count - 2)) for count in lengths])
    streams = torch.eye(most).expand(len(lengths), -1, -1)
    left = rule.left(0, most)
    found, left_sizes = keep_ranked_of_texts(streams, sizes, ranks, keep, left)
    assert found.shape[:2] == left_sizes.shape == (len(lengths), left)
    assert left_sizes.sum(1).tolist() == lengths  # every token counts as before
    for rows, own, count in zip(found, left_sizes, lengths, strict=True):
        alive = int((own > 0).sum())
        assert alive == rule.left(0, count)
        assert (own[:alive] > 0).all()  # padding comes last
        latest = [int(row.nonzero().max()) for row in rows[:alive]]
        assert latest == sorted(set(latest))
        assert torch.equal(rows[0], streams[0, 0])
        assert torch.equal(rows[alive - 1], streams[0, count - 1])
        torch.testing.assert_close(rows[:alive].sum(1), torch.ones(alive))
    start, end = ends_of(left_sizes)
    assert start.tolist() == [0] * len(lengths)
    assert end.tolist() == [rule.left(0, count) - 1 for count in lengths]


def test_macs_are_those_of_a_text_as_long_as_the_context():
    model = ranked("clip")
    text = torch.full((1, CONTEXT), 5)
    text[0, -1] = END
    model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.text_model(text)
    ranking = sum(16 * tokens for tokens in (16, 14, 9))  # the end's logits, which count as nothing
    assert counter.get_total_flops() / 2 == macs(model, "text").encoder + ranking
    assert macs(model, "text").fraction < 1
    assert macs(model) == macs(tiny_model("clip"))


def test_hidden_states_and_attentions_get_fewer_from_layer_to_layer():
    model = ranked("clip")
    model.set_attn_implementation("eager")
    output = model.text_model(TEXTS, output_hidden_states=True, output_attentions=True)
    assert [state.shape[1] for state in output.hidden_states] == [16, 14, 9, 6]
    assert [weights.shape[-1] for weights in output.attentions] == [16, 14, 9]
    assert torch.equal(output.pooler_output, model.text_model(TEXTS).pooler_output)
    as_tuple = model.text_model(TEXTS, return_dict=False)
    assert torch.equal(as_tuple[1], output.pooler_output)


def test_a_text_tower_that_ranks_exports():
    model = ranked("clip")
    exported = torch.export.export(model.text_model, (TEXTS,)).module()
    expected = model.text_model(TEXTS).pooler_output
    torch.testing.assert_close(exported(TEXTS).pooler_output, expected, atol=1e-5, rtol=1e-5)


@CAUSAL
def test_it_is_the_same_from_disk_and_in_chains_of_any_order(family, tmp_path):
    mask, merged = random_slim_mask(3), Reduction(merged_per_layer=(2, 2, 0))
    one = prune(reduce(ranked(family), merged), mask, "text")
    other = reduce(
        reduce(prune(tiny_model(family), mask, "text"), Reduction(ranked_share_per_layer=SHARES)),
        merged,
    )
    one.save_pretrained(tmp_path)
    for tower in ("text", "vision"):
        assert torch.equal(embeddings(one, tower), embeddings(other, tower))
        assert torch.equal(embeddings(load(tmp_path), tower), embeddings(one, tower))


def test_a_stage_that_ranks_tokens_has_texts_of_its_own_name():
    processor, dense = tiny_processor(), tiny_clip()
    stages = [
        Stage(model, processor)
        for model in (
            dense,
            prune(dense, Mask.dense(dense.config)),
            reduce(dense, Reduction(ranked_share_per_layer=(0.8, 0.5))),
            reduce(dense, Reduction(ranked_share_per_layer=(0.8, 0.4))),
        )
    ]
    names = [stage.text_name for stage in stages]
    assert names[0] == names[1]
    assert len(set(names)) == 3


@pytest.mark.parametrize(
    ("family", "reason"),
    [
        ("siglip", "SigLIP's reads the last token, which may be padding"),
        ("altclip", "the text tower of AltCLIP normalises after"),
        ("chinese_clip", "the text tower of Chinese-CLIP normalises after"),
    ],
)
def test_text_towers_that_do_not_fit_are_refused(family, reason):
    with pytest.raises(TowerError, match=reason):
        ranked(family)


@pytest.mark.parametrize(
    ("shares", "reason"),
    [
        ((0.5, 0.5), r"takes 3 numbers"),
        ((0.0, 0.5, 0.5), r"\(0, 1\], found 0"),
        ((0.5, 1.5, 0.5), r"\(0, 1\], found 1.5"),
    ],
)
def test_what_is_no_share_is_refused(shares, reason):
    with pytest.raises(TowerError, match=reason):
        ranked("clip", shares)


def test_one_reduction_is_of_one_tower():
    with pytest.raises(TypeError, match="text and vision one after the other"):
        Reduction(ranked_share_per_layer=SHARES, layers=2)


def test_each_stage_of_a_cascade_searches_with_its_own_texts():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (6, 16, 16, 3), generator=generator, dtype=torch.uint8)
    pictures = [Image.fromarray(pixels.numpy()) for pixels in noise]
    processor, dense = tiny_processor(), tiny_clip()
    first = Stage(reduce(dense, Reduction(ranked_share_per_layer=(0.4, 0.4))), processor)
    last = Stage(dense, processor)
    cascade = Cascade([first, last], m=[3])
    cascade.index(pictures, keys=range(6))
    query = "a red disc on the left of a big blue square"
    scores = [
        (stage.encode_images(pictures) @ stage.encode_texts([query]).T)[:, 0]
        for stage in (first, last)
    ]
    candidates = scores[0].topk(3).indices.tolist()
    expected = sorted(candidates, key=lambda place: -scores[1][place])[:2]
    assert [hit.key for hit in cascade.search(query, k=2)] == expected
