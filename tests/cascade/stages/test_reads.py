"""How much of a file a stage reads is part of its name, on record, and what it does."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from cascade import Collection, ResumedStage, Stage, UnreadableImage
from cascade.collecting.record import Record, StageRecord
from cascade.stages.fingerprints import fingerprint
from cascade.status import StatusOptions, main
from cascade.storing.errors import CollectionError
from corpora import open_image
from corpora.decoding.reads import READS
from corpora.decoding.simulating import with_thumbnail
from pruning_mechanism import Reduction, TowerError, reduce
from pruning_mechanism.encoding import tower_of
from tests.conftest import tiny_clip, tiny_processor
from tests.pruning_mechanism.checkpoints.test_record import RECORD


def photograph(seed: int, thumbnail: int = 24) -> bytes:
    """A JPEG file whose thumbnail is another picture's, so that it shows what was read."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(small).resize((80, 60)).save(stream, "JPEG")
    return with_thumbnail(stream.getvalue(), thumbnail)


@pytest.fixture
def photographs():
    return [photograph(seed) for seed in range(3)]


def stage(reads="full") -> Stage:
    torch.manual_seed(0)
    return Stage(tiny_clip(), tiny_processor(), batch_size=2, reads=reads)


def test_a_name_says_what_is_read_and_is_what_it_was_where_all_is():
    full, scaled, thumbnail = map(stage, READS)
    tower = tower_of(full.model)
    settings = tiny_processor().image_processor.to_dict()
    assert full.name == fingerprint(tower.modules, tower.config, settings)
    assert len({full.name, scaled.name, thumbnail.name}) == 3
    assert full.text_name == thumbnail.text_name


def test_a_stage_embeds_what_it_reads(photographs):
    full, _, thumbnail = map(stage, READS)
    small = [open_image(content, 16, "thumbnail") for content in photographs]
    assert {max(image.size) for image in small} == {24}
    assert torch.equal(thumbnail.encode_images(photographs), full.encode_images(small))
    assert not torch.equal(thumbnail.encode_images(photographs), full.encode_images(photographs))
    assert full.tally.counts == {}
    assert thumbnail.tally.counts == {"used": 6}
    assert torch.equal(
        full.encode_images([thumbnail.prepare(content) for content in photographs]),
        full.encode_images(photographs),
    )


def test_what_has_no_thumbnail_is_read_scaled():
    _, scaled, thumbnail = map(stage, READS)
    large = photograph(0, thumbnail=2)
    assert torch.equal(thumbnail.encode_images([large]), scaled.encode_images([large]))
    assert thumbnail.tally.counts == {"too small": 1}
    with pytest.raises(UnreadableImage):
        thumbnail.encode_images([b"no picture"])


def test_a_checkpoint_made_for_thumbnails_reads_them_unless_told_otherwise(
    clip_directory, tmp_path
):
    assert Stage.load(clip_directory).reads == "full"
    record = replace(RECORD, reads="thumbnail").__dict__
    (clip_directory / "compression.json").write_text(json.dumps(record))
    try:
        assert Stage.load(clip_directory).reads == "thumbnail"
        assert Stage.load(clip_directory, reads="scaled").reads == "scaled"
        (clip_directory / "compression.json").write_text(json.dumps({**record, "reads": "half"}))
        with pytest.raises(TowerError, match="reads must be one of full, scaled, thumbnail"):
            Stage.load(clip_directory)
    finally:
        (clip_directory / "compression.json").unlink()
    with pytest.raises(ValueError, match="got 'head'"):
        Stage.load(tmp_path / "nothing is loaded", reads="head")


def test_a_tower_that_reads_in_full_goes_on_from_no_thumbnail():
    full = stage()
    early = Stage(
        reduce(full.model, Reduction(layers=1)), tiny_processor(), texts=full, reads="thumbnail"
    )
    with pytest.raises(TowerError, match="prepares images in another way"):
        ResumedStage(full, early)


def test_a_collection_knows_what_its_stages_read(clip_directory, tmp_path, photographs, capsys):
    files = [tmp_path / f"{number}.jpg" for number in range(3)]
    for file, content in zip(files, photographs, strict=True):
        file.write_bytes(content)
    first, full = Stage.load(clip_directory, reads="thumbnail"), Stage.load(clip_directory)
    where = tmp_path / "photos.cascade"
    with Collection.create(where, [first, full], m=[2]) as collection:
        collection.add(files)
        hits = collection.search("a red disc", k=2)
    written = json.loads((where / "collection.json").read_text())["stages"]
    assert [entry.get("reads") for entry in written] == ["thumbnail", None]
    with Collection.open(where) as again:  # by its record: the checkpoint has none
        assert [(hit.key, hit.score) for hit in again.search("a red disc", k=2)] == [
            (hit.key, hit.score) for hit in hits
        ]
        again.add([tmp_path / "0.jpg"])
    main(StatusOptions(collection=where, json=True))
    assert json.loads(capsys.readouterr().out)["reads"] == ["thumbnail", "full"]
    with pytest.raises(CollectionError, match="its weights or its preprocessing differ"):
        Collection.open(where, [full, full])


def test_a_record_that_reads_what_nobody_knows_is_damaged(tmp_path):
    stages = [StageRecord("a", "b", "c", reads="thumbnail")]
    assert str(stages[0]) == "c, reading thumbnails (a)"
    Record(stages, (), "float16").write(tmp_path)
    assert Record.read(tmp_path).stages == stages
    file = tmp_path / "collection.json"
    file.write_text(file.read_text().replace('"thumbnail"', '"half"'))
    with pytest.raises(CollectionError, match=r"stages read \['half'\]"):
        Record.read(tmp_path)
