"""JPEG files decoded on an NVIDIA GPU: close to the CPU's pixels, in order, and nothing else lost.

Skipped where there is no such GPU, or torchvision was built without its decoder.
"""

import io
import threading

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity

from cascade import Stage, UnreadableImage
from corpora import load_corpus, open_image
from corpora.decoding.jpeg.whole import read_jpeg
from corpora.pixels import on_device
from corpora.pixels.on_device import DeviceDecoder, upright
from evaluation.breaking_down.ways import OfStage
from tests.corpora.jpegs import LEFT, jpeg, picture, turned
from tests.test_cuda import DEMO

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
    pytest.mark.filterwarnings("ignore:The image decoding and encoding:DeprecationWarning"),
]
LAYOUTS = ("4:4:4", "4:2:2", "4:2:0")
KINDS = {
    **{
        f"{layout}, {'progressive' if progressive else 'baseline'}": jpeg(
            picture(500, 375), subsampling=layout, progressive=progressive, quality=92
        )
        for layout in LAYOUTS
        for progressive in (False, True)
    },
    "grey": jpeg(picture(500, 375).convert("L")),
    "turned": jpeg(picture(500, 375), exif=turned(6)),
    "restarts": jpeg(picture(500, 375), restart_marker_blocks=3),
}
"""Of colours that change as slowly as a photograph's."""


@pytest.fixture(scope="module")
def decoder():
    found = DeviceDecoder.on("cuda")
    if found is None:
        pytest.skip("this torchvision decodes nothing on a GPU")
    return found


@pytest.fixture(scope="module")
def stages(decoder):
    """A stage whose GPU decodes, and one on the same GPU for which the CPU does."""
    there, here = (Stage.load(DEMO / "clip-scenes", device="cuda", batch_size=16) for _ in "ab")
    assert there.preparation.decoder is not None
    here.preparation.decoder = None
    return there, here


@pytest.fixture(scope="module")
def photographs() -> list[bytes]:
    """Of several sizes, layouts and orientations."""
    scenes = load_corpus("scenes", None, "validation").select(range(96))["image"][:]
    found = []
    for place, scene in enumerate(scenes):
        size = [(300, 200), (200, 260), (500, 375)][place % 3]
        layout = LAYOUTS[place % 2]
        found.append(
            jpeg(
                scene.resize(size),
                quality=92,
                subsampling=layout,
                progressive=place % 5 == 0,
                exif=turned(1 + place % 8),
            )
        )
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_close_to_pillow_s(kind, decoder):
    file = read_jpeg(KINDS[kind])
    assert decoder.takes(file.frame)
    [[pixels]] = map(list, decoder.decoded([file]))
    expected = np.asarray(open_image(KINDS[kind])).transpose(2, 0, 1)
    apart = np.abs(upright(pixels, file.orientation).cpu().numpy().astype(int) - expected)
    assert apart.mean() <= 3
    if kind.startswith(("4:4:4", "grey")):  # no layer is enlarged
        assert apart.max() <= 2


def test_embeddings_are_close_to_those_of_pictures_decoded_on_the_cpu(stages, photographs):
    there, here = (stage.encode_images(photographs) for stage in stages)
    assert cosine_similarity(there, here).min() > 0.995
    assert cosine_similarity(there, here).mean() > 0.999


def test_files_and_other_images_keep_their_order(stages, photographs):
    png = io.BytesIO()
    picture().save(png, "PNG")
    mixed = [*photographs[:20], png.getvalue(), LEFT["CMYK"], picture(), *photographs[20:30]]
    there, here = (stage.pixels(mixed) for stage in stages)
    assert there.device.type == "cuda"
    assert (there - here).abs().mean(dim=(1, 2, 3)).max() < 0.1
    assert torch.equal(there[20:23], here[20:23])
    swapped = stages[0].pixels(mixed[::-1])
    assert torch.equal(swapped.flip(0), there)


def test_a_picture_that_a_gpu_cannot_divide_so_far_is_prepared_on_the_cpu(stages):
    large = jpeg(picture(8064, 6048), quality=30)
    there, here = (stage.pixels([large, jpeg(picture(300, 200))]) for stage in stages)
    assert (there - here).abs().mean(dim=(1, 2, 3)).max() < 0.1


@pytest.mark.parametrize("together", [None, 1, 500_000])
def test_batches_on_two_streams_are_those_made_one_by_one(
    together, stages, photographs, monkeypatch
):
    """If memory were used again too early, some would be another's."""
    if together is not None:  # in many groups, each of which takes the memory of the one before
        monkeypatch.setattr(on_device, "_DECODED_PIXELS", together)
    there = stages[0]
    sources = photographs * 6
    alone = torch.cat([there.pixels([each]) for each in photographs]).repeat(6, 1, 1, 1)
    for _ in range(3):
        made = []
        for batch in there.batches(sources):
            made.append(batch.clone())
            torch.randn(64, 3, 512, 512, device="cuda").sum()  # takes and gives back memory
        assert torch.equal(torch.cat(made), alone)


def test_what_is_prepared_ahead_gives_the_same(stages, photographs):
    there = stages[0]
    ahead = [there.prepare(photograph) for photograph in photographs]
    torch.testing.assert_close(
        there.encode_images(ahead), there.encode_images(photographs), atol=2e-3, rtol=0
    )


def test_a_file_that_is_cut_off_is_never_filled_up_from_another(stages, photographs):
    there, here = stages
    cut = photographs[2][: len(photographs[2]) // 2]
    said = []
    before = threading.active_count()
    for stage in (here, there):
        with pytest.raises(UnreadableImage) as error:
            stage.encode_images([*photographs[:40], cut])
        said.append(str(error.value))
    assert said[0] == said[1]
    assert threading.active_count() == before


def test_the_steps_of_decoding_on_a_gpu_are_told_apart(stages, photographs, tmp_path):
    files = []
    for place, content in enumerate(photographs[:20]):
        files.append(tmp_path / f"{place}.jpg")
        files[-1].write_bytes(content)
    steps = OfStage(stages[0]).steps(files)
    assert steps.nbytes == sum(file.stat().st_size for file in files)
    assert min(steps.read, steps.decode, steps.prepare, steps.encode) > 0
