"""A budget of seconds from file to embedding, on a person's own files."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file

from compress import joint
from compress.budgets.opening import Outlay
from compress.budgets.token_prices import SecondPrices
from compress.command import run_command
from compress.errors import UserError
from compress.searching import combinations, files, latency
from compress.searching.ways import FullTower, Mean, Opened, Way, opened, promising
from corpora.decoding.simulating import with_thumbnail
from corpora.pixels import edge_taken
from corpora.readers.places import sample_of
from pruning_mechanism import load, load_processor
from pruning_mechanism.deployed.tower import Deployed
from tests.compress.test_joint import SMALL, given_seconds, read

FULL, SCALED, THUMBNAIL = (Way(reads) for reads in ("full", "scaled", "thumbnail"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Four photographs of 6 megapixels, three with a thumbnail, and a file that is none."""
    place = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(4):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        file = place / f"{number}.jpg"
        coarse.resize((2816, 2112), Image.Resampling.BICUBIC).save(file, quality=95)
        if number:
            file.write_bytes(with_thumbnail(file.read_bytes(), 160))
    (place / "broken.jpg").write_bytes(b"\xff\xd8\xff no photograph")
    return place


@pytest.fixture
def command(least_directory, folder, tmp_path, monkeypatch):
    """Runs the command, by encoder's seconds that are given."""
    monkeypatch.setattr(SecondPrices, "measured", lambda *_: given_seconds())
    monkeypatch.setattr(combinations, "MERGED", {})

    def run(*flags: str, output="out"):
        asked = ["--model", str(least_directory), "--corpus", "folder", "--corpus-dir", str(folder)]
        asked += [
            *SMALL,
            "--exits",
            "1",
            "--structures",
            "heads,neurons",
            "--output",
            str(tmp_path / output),
            *flags,
        ]
        run_command(joint.main, joint.JointOptions, "compress.joint", asked)
        return tmp_path / output

    return run


def taken(full=8.0, scaled=4.0, thumbnail=1.0, encoding=2.0, used=3) -> Opened:
    """What ways took, given their seconds."""
    ways = {FULL: full, SCALED: scaled, THUMBNAIL: thumbnail}
    opening = {way: Mean(value, None) for way, value in ways.items()}
    tally = {THUMBNAIL: {"used": used} if used else {"absent": 4}}
    return Opened(4, 9, (), opening, Mean(8.0, None), Mean(encoding, 0.1), tally)


SECONDS = st.floats(0.001, 1000)


@given(SECONDS, SECONDS, SECONDS, st.floats(0, 1))
def test_what_is_left_to_the_encoder_adds_up_to_the_share_of_all_seconds(
    opening, full_opening, encoding, share
):
    outlay = Outlay(opening, full_opening, encoding)
    all_seconds = opening + share * encoding
    assert outlay.share(share) == pytest.approx(all_seconds / (full_opening + encoding))
    tolerance = 1e-9 * (opening + full_opening + encoding) / encoding
    assert outlay.of_encoder(outlay.share(share)) == pytest.approx(share, abs=tolerance)


@given(st.floats(0, 1))
def test_where_opening_costs_nothing_shares_are_of_the_encoder(share):
    assert Outlay().share(share) == Outlay().of_encoder(share) == share


PROMISING = {
    "all leave something": (taken(), 0.9, {FULL: 0.5, SCALED: 1.0, THUMBNAIL: 1.0}),
    "full takes all": (taken(), 0.5, {SCALED: 0.5, THUMBNAIL: 1.0}),
    "only thumbnails are left": (taken(), 0.2, {THUMBNAIL: 0.5}),
    "nothing is left": (taken(), 0.1, {}),
    "no more is decoded than is scaled": (taken(scaled=7.9), 0.9, {FULL: 0.5, THUMBNAIL: 1.0}),
    "no thumbnails": (taken(used=0), 0.9, {FULL: 0.5, SCALED: 1.0}),
    "no thumbnails, none needed": (taken(used=0, scaled=7.99), 0.9, {FULL: 0.5}),
}


@pytest.mark.parametrize("case", PROMISING)
def test_ways_are_searched_that_leave_something_and_save_seconds(case):
    found, share, expected = PROMISING[case]
    left, out = promising(found, share)
    assert left == pytest.approx(expected)
    assert left.keys() | out.keys() == {FULL, SCALED, THUMBNAIL}
    assert not left.keys() & out.keys()


def test_a_way_that_is_asked_for_is_searched_even_where_no_file_has_a_thumbnail():
    found = taken(used=0)
    alone = replace(found, opening={THUMBNAIL: Mean(4.0, None)})
    assert promising(alone, 0.9) == ({THUMBNAIL: 1.0}, {})


def test_files_that_can_be_opened_are_measured_and_others_are_told(photos, least_directory):
    processor = load_processor(least_directory)
    full = FullTower(Deployed(load(least_directory)), processor, 8)
    sample = sample_of([str(photos)], 10, 0)
    found = opened(sample, dict.fromkeys([FULL, THUMBNAIL], processor), full)
    assert (found.files, found.among) == (4, 5)
    assert [problem.split(":")[0] for problem in found.unreadable] == ["broken.jpg"]
    assert found.thumbnails == {THUMBNAIL: {"used": 3, "absent": 1}}
    assert list(found.opening) == [FULL, THUMBNAIL]
    assert found.full_encoding.seconds > 0
    assert found.full_opening == found.opening[FULL]  # which is as the full tower reads
    json.dumps(found.entries(), allow_nan=False)
    with pytest.raises(UserError, match="none of the 1 files drawn"):
        opened(sample_of([str(photos / "broken.jpg")], 10, 0), {FULL: processor}, full)


def test_where_decoding_takes_nearly_all_seconds_the_tower_reads_thumbnails(command, photos):
    # reading thumbnails, of which one file has none, takes 0.18 of the seconds, scaled 0.55: a busy
    # machine's clock has said 0.31 for the former
    directory = command("--latency-constraint", "0.45", "--files", str(photos))
    record, found = read(directory, "compression.json"), read(directory, "joint.json")
    assert record["reads"] == found["way"] == "thumbnail"
    assert "opening files takes" in found["other_ways"]["full"]
    said = " ".join(record["notes"])
    assert "of the full tower's seconds here, from file to embedding" in said
    assert "measured on 4 of 5 files" in said
    assert "1 more can't be opened; thumbnails: 3 used, 1 absent" in said
    assert said.count("the calibration images have no thumbnails") == 1
    assert record["settings"]["files"] == photos.name


def test_the_way_whose_tower_loses_least_is_taken(command, photos, monkeypatch):
    monkeypatch.setattr(files, "opened", lambda *_: taken())
    monkeypatch.setattr(latency, "measured_share", lambda *_: 0.48)
    directory = command("--latency-constraint", "0.9", "--files", str(photos))
    found = read(directory, "joint.json")
    lost = {found["way"]: min(each["lost"] for each in found["tried"])}
    for way, said in found["other_ways"].items():
        lost[way] = float(said.split()[1])
    assert lost.keys() == {"full", "scaled", "thumbnail"}
    assert lost[found["way"]] == pytest.approx(min(lost.values()), abs=1e-4)
    assert len(set(lost.values())) > 1
    assert read(directory, "compression.json")["reads"] == found["way"]


def test_a_way_makes_what_its_encoders_share_alone_would_make(command, photos, monkeypatch):
    monkeypatch.setattr(files, "opened", lambda *_: taken())
    monkeypatch.setattr(latency, "measured_share", lambda *_: 0.48)
    by_files = command("--latency-constraint", "0.2", "--files", str(photos))
    alone = command(
        *("--latency-constraint", "0.5", "--reads", "thumbnail"), output="alone"
    )  # of the encoder's: 0.2 of 10 seconds, but for the one that a thumbnail takes, of 2
    one, other = (load_file(place / "model.safetensors") for place in (by_files, alone))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    said = read(by_files, "compression.json")["notes"]
    assert any("took 0.196 of" in note for note in said)  # (1 + 0.48 * 2) / 10
    assert "took 0.480 of the full tower's seconds here, from pixels on" in " ".join(
        read(alone, "compression.json")["notes"]
    )


def test_smaller_images_are_tried_by_the_rules_that_make_them(command, photos, monkeypatch):
    def of_ways(_sample, ways, _full):
        assert {way.says for way in ways} == {"full", "full, resolution 8", "full, patch 4"}
        assert {edge_taken(processor) for processor in ways.values()} == {16, 8}
        seconds = {way: Mean(1.0 if way.says == chosen else 8.0, None) for way in ways}
        return replace(taken(), opening=seconds)

    monkeypatch.setattr(files, "opened", of_ways)
    monkeypatch.setattr(latency, "measured_share", lambda *_: 0.48)
    flags = ("--latency-constraint", "0.2", "--files", str(photos), "--reads", "full")
    flags += ("--resolutions", "8", "--patch-sizes", "4")
    for chosen, tokens, step in (
        ("full, resolution 8", 2, "resolution resolution 8"),
        ("full, patch 4", 5, "patch_size patch 4"),
    ):
        directory = command(*flags, output=chosen.replace(" ", "-"))
        record, own = read(directory, "compression.json"), load(directory).config.vision_config
        assert record["chain"] == [step, "joint file-latency 0.2"]
        assert own.image_size == edge_taken(load_processor(directory)) == 8
        assert (own.image_size // own.patch_size) ** 2 + 1 == tokens
        assert read(directory, "joint.json")["way"] == chosen


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--latency-constraint", "0.5", "--resolutions", "16"), "takes images of 16 already"),
        (("--latency-constraint", "0.5", "--resolutions", "9"), "9"),
        (("--latency-constraint", "0.5", "--patch-sizes", "8"), "take fewer, found 8"),
        (("--latency-constraint", "0.05"), "thumbnail: opening files takes 0.100 alone"),
        (("--latency-constraint", "0.3", "--reads", "scaled"), "scaled: opening files takes 0.400"),
        (("--mac-constraint", "0.5"), "has no effect with no latency constraint"),
        (("--latency-constraint", "0.5", "--files", "nowhere"), "no such file or directory"),
    ],
)
def test_what_cannot_be_reached_is_refused(command, photos, capsys, monkeypatch, flags, said):
    def of_ways(_sample, ways, _full):
        return replace(taken(), opening={way: taken().opening[way] for way in ways})

    monkeypatch.setattr(files, "opened", of_ways)
    with pytest.raises(SystemExit) as ending:
        command("--files", str(photos), *flags)
    assert ending.value.code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
