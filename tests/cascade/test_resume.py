"""A tower that resumes from an early exit's states is the tower from the start."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade import ResumedStage, Stage, UnreadableImage
from cascade.resume import exits_early
from cascade.searching.states import States, states_of
from pruning_mechanism import Mask, Reduction, TowerError, align, prune, reduce
from pruning_mechanism.modeling.aligned_projection import AlignedProjection
from tests.cascade.conftest import LAYERS, exit_of
from tests.conftest import tiny_clip, tiny_processor
from tests.lanes import examples
from tests.pruning_mechanism.conftest import tiny_model

EXACT = {"atol": 1e-5, "rtol": 0}
HALF = {"atol": 5e-3, "rtol": 0}
unhurried = settings(deadline=None, max_examples=examples(6, 20))


@pytest.mark.parametrize("family", ["clip", "metaclip_2", "altclip", "chinese_clip"])
@pytest.mark.parametrize("layers", [1, 2])
def test_resuming_from_the_towers_own_exit_is_the_tower(family, layers, pictures):
    processor = tiny_processor()
    processor.tokenizer.model_max_length = 12
    full = Stage(tiny_model(family), processor, batch_size=3)
    first = Stage(reduce(full.model, Reduction(layers=layers)), processor, batch_size=2)
    expected = full.encode_images(pictures)
    exact = ResumedStage(full, first, dtype=torch.float32).encode_images(pictures)
    half = ResumedStage(full, first).encode_images(pictures)
    torch.testing.assert_close(exact, expected, **EXACT)
    torch.testing.assert_close(half, expected, **HALF)
    assert not torch.equal(half, exact)  # they were in half precision in between
    assert (first.encode_images(pictures) - expected).abs().max() > 0.01  # and it isn't the exit


REDUCTIONS = {
    "merged": {"merged_per_layer": (3, 4, 0, 0)},
    "ranked": {"ranked_per_layer": (0, 9, 0, 0), "ranker": "attention"},
    "kept patches": {"kept_patches": 7, "patch_rule": "saliency"},
    "both": {"kept_patches": 12, "patch_rule": "grid", "merged_per_layer": (0, 5, 0, 0)},
}


@pytest.mark.parametrize("reduction", REDUCTIONS.values(), ids=REDUCTIONS)
def test_a_dense_tower_resumes_on_the_tokens_that_are_left(full, pictures, reduction):
    """The tower that is reduced in its first layers only and goes on by itself says what is due."""
    expected = Stage(reduce(full.model, Reduction(**reduction)), tiny_processor())
    resumed = ResumedStage(full, exit_of(full, **reduction), dtype=torch.float32)
    found = resumed.encode_images(pictures)
    torch.testing.assert_close(found, expected.encode_images(pictures), **EXACT)
    assert (found - full.encode_images(pictures)).abs().max() > 1e-3


def test_a_reduced_tower_resumes_with_its_own_reductions(full, pictures):
    every = Stage(
        reduce(full.model, Reduction(merged_per_layer=(2, 3, 3, 2))), tiny_processor(), batch_size=2
    )
    resumed = ResumedStage(every, exit_of(every), dtype=torch.float32)
    torch.testing.assert_close(
        resumed.encode_images(pictures), every.encode_images(pictures), **EXACT
    )


def test_an_aligned_tower_that_resumes_reads_off_merged_tokens_by_their_sizes(full, pictures):
    torch.manual_seed(0)
    merging = reduce(full.model, Reduction(merged_per_layer=(0, 6, 0, 0)))
    projection = AlignedProjection(32, 5, 8)
    expected = Stage(align(merging, projection), tiny_processor())
    aligned = Stage(align(full.model, projection), tiny_processor())
    first = exit_of(full, merged_per_layer=(0, 6, 0, 0))
    resumed = ResumedStage(aligned, first, dtype=torch.float32)
    torch.testing.assert_close(
        resumed.encode_images(pictures), expected.encode_images(pictures), **EXACT
    )


def test_a_pruned_exit_is_gone_on_from(full, pictures):
    mask = Mask.dense(full.model.config)
    mask.heads[:2, 1:], mask.neurons[:2, ::2] = False, False
    pruned = Stage(prune(full.model, mask), tiny_processor())  # dense from layer 2 on
    resumed = ResumedStage(full, exit_of(pruned), dtype=torch.float32)
    torch.testing.assert_close(
        resumed.encode_images(pictures), pruned.encode_images(pictures), **EXACT
    )


def test_the_first_stages_own_embeddings_do_not_change(full, pictures):
    torch.manual_seed(0)
    reduced = exit_of(full, merged_per_layer=(3, 4, 0, 0))
    first = Stage(align(reduced.model, AlignedProjection(32, 5, 8)), tiny_processor(), batch_size=2)
    embeddings, states = ResumedStage(full, first, merged=2).encode_first(pictures)
    assert torch.equal(embeddings, first.encode_images(pictures))
    assert (states.hidden.shape, states.hidden.dtype) == ((5, 8, 16), torch.float16)
    assert (states.sizes[:, 1:].sum(1) == 16).all()


@unhurried
@given(st.integers(0, 2**31), st.integers(1, 6))
def test_merging_tokens_that_are_the_same_changes_nothing(seed, pairs):
    """What attention makes of a token and its double is what it makes of one of size 2."""
    full = Stage(tiny_clip(num_hidden_layers=LAYERS), tiny_processor())
    resumed = ResumedStage(full, exit_of(full), dtype=torch.float32)
    hidden = torch.randn(2, 14, 16, generator=torch.Generator().manual_seed(seed))
    hidden[:, 2 : 2 * pairs + 1 : 2] = hidden[:, 1 : 2 * pairs : 2]
    merged = states_of(hidden, None, pairs, torch.float32)
    assert merged.sizes.max() == 2
    torch.testing.assert_close(
        resumed.encode_states(merged), resumed.encode_states(States(hidden)), **EXACT
    )


def test_fewer_tokens_kept_change_the_tower_a_little(full, pictures):
    plain, merged = (
        ResumedStage(full, exit_of(full), merged=each, dtype=torch.float32) for each in (0, 6)
    )
    found, expected = merged.encode_images(pictures), plain.encode_images(pictures)
    assert merged.encode_first(pictures)[1].hidden.shape[1] == 17 - 6
    assert (found * expected).sum(1).min() > 0.99
    assert (found - expected).abs().max() > 1e-3


@pytest.mark.parametrize("computed", [torch.bfloat16, torch.float16])
def test_towers_in_half_precision_resume_too(full, pictures, computed):
    model = full.model.to(computed)
    full, first = Stage(model, tiny_processor()), exit_of(Stage(model, tiny_processor()))
    resumed = ResumedStage(full, first, merged=3, dtype=torch.bfloat16)
    states = resumed.encode_first(pictures)[1]
    assert (states.hidden.dtype, states.hidden.device.type) == (torch.bfloat16, "cpu")
    assert resumed.encode_states(states).dtype == torch.float32
    plain = ResumedStage(full, first, dtype=computed)
    torch.testing.assert_close(
        plain.encode_images(pictures), full.encode_images(pictures), atol=0.05, rtol=0
    )


def test_the_two_halves_of_a_first_stage_make_the_whole(full, pictures):
    resumed = ResumedStage(full, exit_of(full))
    embeddings, states = resumed.encode_first(pictures)
    in_one_batch = resumed.encode_first_pixels(resumed.first.pixels(pictures))
    torch.testing.assert_close(in_one_batch[0], embeddings)
    torch.testing.assert_close(in_one_batch[1].hidden, states.hidden, **HALF)
    assert resumed.layer == 2


def test_no_images_are_no_states(full):
    resumed = ResumedStage(full, exit_of(full), merged=2)
    embeddings, states = resumed.encode_first([])
    assert (embeddings.shape, states.hidden.shape) == ((0, 8), (0, 15, 16))
    assert resumed.encode_states(states).shape == (0, 8)


def test_an_unreadable_image_is_an_error_of_its_own(full, pictures):
    with pytest.raises(UnreadableImage):
        ResumedStage(full, exit_of(full)).encode_first([*pictures, b"no image"])


def test_names_say_what_is_interchangeable(full):
    first = exit_of(full)
    resumed = ResumedStage(full, first)
    assert resumed.resumes == first.name
    assert resumed.text_name == full.text_name
    assert torch.equal(resumed.encode_texts(["red disc"]), full.encode_texts(["red disc"]))
    assert resumed.name == ResumedStage(full, exit_of(full)).name
    others = [
        ResumedStage(full, first, merged=1),
        ResumedStage(full, first, dtype=torch.float32),
        ResumedStage(full, exit_of(full, 1)),
        full,
        first,
    ]
    assert len({resumed.name, *(each.name for each in others)}) == 6


def another(processor=None, **vision) -> Stage:
    return Stage(
        tiny_clip(**{"num_hidden_layers": LAYERS, **vision}), processor or tiny_processor()
    )


def siglip() -> Stage:
    return Stage(tiny_model("siglip"), tiny_processor())


def resized(full: Stage) -> Stage:
    smaller = reduce(full.model, Reduction(layers=2, image_size=8))
    return Stage(smaller, tiny_processor(8))


def many_sizes(full: Stage) -> Stage:
    sizes = {"resolutions": (8, 16), "resolution_bounds": (0.1,), "resolution_shares": (0.5, 0.5)}
    return Stage(reduce(full.model, Reduction(**sizes)), tiny_processor())


def whitened() -> Stage:
    processor = tiny_processor()
    processor.image_processor.image_mean = [0.5, 0.5, 0.5]
    return another(processor)


@pytest.mark.parametrize(
    ("pair", "complaint"),
    [
        (lambda full: (full, another()), "is no early exit: it has no layer left to resume at"),
        (lambda full: (exit_of(full, 2), exit_of(full, 2)), "exits after layer 2, .* has 2 layers"),
        (lambda full: (exit_of(full, 1), exit_of(full, 2)), "exits after layer 2, .* has 1 layers"),
        (lambda full: (another(num_hidden_layers=6), exit_of(full)), "exit of 4 .* resume has 6"),
        (lambda full: (another(hidden_size=32), exit_of(full)), "has hidden_size 16, .* resume 32"),
        (lambda full: (another(patch_size=8), exit_of(full)), "has patch_size 4, .* resume 8"),
        (lambda full: (full, resized(full)), "has image_size 8, .* resume 16"),
        (lambda full: (full, exit_of(many_sizes(full))), "first stage takes .* resolutions"),
        (lambda full: (many_sizes(full), exit_of(full)), "to resume takes .* resolutions"),
        (lambda full: (whitened(), exit_of(full)), "prepares images in another way"),
        (lambda full: (siglip(), exit_of(full)), "'siglip' vision tower has no class token"),
        (lambda full: (full, siglip()), "'siglip' vision tower has no class token"),
        (lambda full: (full, ResumedStage(full, exit_of(full))), "a ResumedStage can neither"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(full, pair, complaint):
    with pytest.raises(TowerError, match=complaint) as refusal:
        ResumedStage(*pair(full))
    assert "\n" not in str(refusal.value)


def test_an_exit_can_go_on_to_a_later_exit(full, pictures):
    later = exit_of(full, 3)
    resumed = ResumedStage(later, exit_of(full, 1), dtype=torch.float32)
    torch.testing.assert_close(
        resumed.encode_images(pictures), later.encode_images(pictures), **EXACT
    )


def test_a_processor_read_from_a_file_is_the_same_preprocessing(full, tmp_path):
    first = exit_of(full)
    first.model.save_pretrained(tmp_path)
    tiny_processor().save_pretrained(tmp_path)
    read = Stage.load(tmp_path)
    assert ResumedStage(full, read).layer == 2
    assert exits_early(read.model)
    assert not exits_early(full.model)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"merged": -1}, "merged must be from 0 to 8, .* 9 patch tokens"),
        ({"merged": 9}, "merged must be from 0 to 8"),
        ({"dtype": torch.int8}, "floating-point type, got torch.int8"),
    ],
)
def test_how_states_are_kept_must_make_sense(full, options, complaint):
    with pytest.raises(ValueError, match=complaint):
        ResumedStage(full, exit_of(full, merged_per_layer=(3, 4, 0, 0)), **options)
