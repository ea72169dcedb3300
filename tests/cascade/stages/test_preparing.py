"""Images reach the tower the same whether its device decodes them or the CPU does."""

import io
import threading

import pytest
import torch

from cascade import Stage, UnreadableImage
from cascade.stages.images import SeenByThumbnail
from corpora import CorpusError
from corpora.decoding import images as decoding
from corpora.decoding.jpeg.whole import JpegFile
from corpora.decoding.reads import Tally
from corpora.pixels import on_device
from corpora.pixels.on_device import DeviceDecoder
from tests.corpora.jpegs import LEFT, TAKEN, jpeg, picture, turned

# torchvision's decoders will go to torchcodec one day
pytestmark = pytest.mark.filterwarnings("ignore:The image decoding and encoding:DeprecationWarning")


@pytest.fixture
def there(clip_directory):
    """A stage whose device decodes; here that is the CPU."""
    stage = Stage.load(clip_directory, batch_size=4)
    stage.preparation.decoder = DeviceDecoder.on("cpu")
    assert stage.preparation.decoder is not None
    return stage


@pytest.fixture
def here(clip_directory):
    return Stage.load(clip_directory, batch_size=4)


@pytest.fixture
def images(tmp_path) -> list:
    """JPEG files in every shape that a source may have, and others."""
    files = [jpeg(picture(60 + n, 40, n), exif=turned(1 + n % 8)) for n in range(9)]
    (tmp_path / "photo.jpg").write_bytes(files[0])
    png = io.BytesIO()
    picture().save(png, "PNG")
    return [
        *files,
        tmp_path / "photo.jpg",
        str(tmp_path / "photo.jpg"),
        {"path": str(tmp_path / "photo.jpg"), "bytes": None},
        {"path": None, "bytes": files[1]},
        bytearray(files[2]),
        lambda: files[3],
        png.getvalue(),
        picture(),
        LEFT["CMYK"],
        TAKEN["RGB"],
        jpeg(picture(700, 20)),
    ]


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_every_kind_of_source_gives_the_same_pixels(here, there, images, threads):
    expected = here.pixels(images)
    assert torch.equal(there.pixels(images), expected)
    assert torch.equal(torch.cat(list(there.batches(images))), expected)
    torch.testing.assert_close(there.encode_images(images), here.encode_images(images))
    found = list(there.encode_batches([images[:7], images[7:8], images[8:]]))
    assert [len(part) for part in found] == [7, 1, len(images) - 8]


def test_files_go_to_the_decoder_and_nothing_else(there, images, monkeypatch):
    decoded: list[bytes] = []
    own = on_device._nvjpeg
    monkeypatch.setattr(
        on_device,
        "_nvjpeg",
        lambda contents, device: decoded.extend(contents) or own(contents, device),
    )
    there.pixels(images)
    assert len(decoded) == 15


def test_an_image_prepared_ahead_is_its_file_and_gives_the_same(here, there, images):
    ahead = [there.prepare(image) for image in images]
    assert sum(isinstance(each.levels, JpegFile) for each in ahead) == 15
    expected = here.encode_images(images)
    torch.testing.assert_close(there.encode_images(ahead), expected)
    # a stage that decodes on the CPU, and one that prepares in another way, open them themselves
    torch.testing.assert_close(here.encode_images(ahead), expected)
    other = Stage(there.model, there.preparation.processor, texts=there, reads="scaled")
    torch.testing.assert_close(other.encode_images(ahead), other.encode_images(images))


def test_what_is_wrong_is_said_as_on_the_cpu(here, there, tmp_path):
    def failing():
        raise ValueError("the archive is gone")

    for broken in (
        tmp_path / "absent.jpg",
        LEFT["cut in its head"],
        TAKEN["larger"][:9000],
        b"nothing",
        failing,
    ):
        said = []
        for stage in (here, there):
            with pytest.raises(UnreadableImage) as error:
                stage.encode_images([TAKEN["larger"]] * 20 + [broken])
            said.append(str(error.value))
        assert said[0] == said[1]
    with pytest.raises(TypeError, match="not a int"):
        there.encode_images([3])


def test_an_error_comes_at_its_batch_and_leaves_no_thread(there, threads):
    before = threading.active_count()
    running = there.encode_batches([[TAKEN["larger"]] * 3, [b"nothing"], [TAKEN["larger"]]])
    assert len(next(running)) == 3
    with pytest.raises(UnreadableImage):
        next(running)
    assert threading.active_count() == before


def test_a_picture_that_is_compared_with_its_thumbnail_is_opened_here(there):
    tally = Tally()
    there.encode_images([SeenByThumbnail(TAKEN["larger"], tally)])
    assert isinstance(there.prepare(SeenByThumbnail(TAKEN["larger"], tally)).levels, torch.Tensor)


def test_what_is_not_read_in_full_is_decoded_on_the_cpu(there, clip_directory, monkeypatch):
    monkeypatch.setattr(DeviceDecoder, "on", lambda device: there.preparation.decoder)
    device = torch.device("cuda")
    kinds = {
        reads: type(there.preparation)(there.preparation.processor, reads, device).decoder
        for reads in ("full", "scaled", "thumbnail")
    }
    assert kinds["full"] is there.preparation.decoder
    assert kinds["scaled"] is kinds["thumbnail"] is None  # else it would read more than it is named


def test_a_function_that_gives_an_image_is_asked_once(there):
    asked: list[str] = []

    def giving(name, content):
        return lambda: asked.append(name) or content

    sources = [giving("taken", TAKEN["larger"]), giving("left", LEFT["CMYK"])]
    there.encode_images(sources)
    ahead = [there.prepare(source) for source in sources]
    assert [type(each.levels) for each in ahead] == [JpegFile, torch.Tensor]
    assert asked == ["taken", "left"] * 2


def test_an_image_that_the_device_fails_on_is_named_by_its_file(there, tmp_path, monkeypatch):
    (tmp_path / "photo.jpg").write_bytes(TAKEN["larger"])
    ahead = there.prepare(tmp_path / "photo.jpg")

    def failing(contents, device):
        raise RuntimeError("no more memory")

    monkeypatch.setattr(on_device, "_nvjpeg", failing)
    assert torch.equal(there.pixels([ahead]), there.pixels([TAKEN["larger"]]))

    def refusing(stream, asked):
        raise CorpusError("is refused")

    monkeypatch.setattr(decoding, "_decoded", refusing)
    with pytest.raises(UnreadableImage, match=r"photo\.jpg: is refused"):
        there.pixels([ahead])
