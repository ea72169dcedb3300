"""What a directory holds beside photographs is passed over, counted and said; names are names."""

import json
import os
from pathlib import Path

import datasets
import pyarrow.parquet
import pytest
from datasets import Features, Image, Value

from corpora import CorpusError, load_corpus
from corpora.column import undecoded
from corpora.readers import walking
from corpora.readers.reading import texts
from corpora.readers.walking import walk


def described(directory, write, names, **more):
    rows = [{"file_name": name, "text": f"text of {name}", **more} for name in names]
    write(directory / "metadata.jsonl", "\n".join(map(json.dumps, rows)))


def test_every_suffix_of_a_photograph_is_read_and_case_does_not_matter(tmp_path, paint, quiet_load):
    names = [
        f"{n}.{suffix}" for n, suffix in enumerate(("jpg", "JPE", "jp2", "j2k", "AVIF", "tif"))
    ]
    for name in names:
        paint(tmp_path / "a.png").rename(tmp_path / name)
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes() + name.encode())
    corpora = [quiet_load("folder", tmp_path, s, captions=False) for s in ("train", "test")]
    assert sorted(key for corpus, _ in corpora for key in corpus["key"]) == names
    assert not any(said for _, said in corpora)


def test_what_is_no_photograph_is_counted_and_said(tmp_path, paint, write, quiet_load):
    for n in range(5):
        paint(tmp_path / f"{n}.png")
    for other in (
        *("@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg", "__MACOSX/._0.png", ".thumbnails/1.png", "._2.png"),
        *(".hidden.png", "Previews.lrdata/4/4.jpg", "Thumbs.db", "notes.txt", "more.txt", "README"),
        *("film.mov", "#recycle/9.png"),
    ):
        write(tmp_path / other, f"content of {other}")
    write(tmp_path / "nothing.jpg", b"")
    os.symlink(tmp_path / "gone.png", tmp_path / "link.png")
    paint(tmp_path / "directory.jpg" / "inside.png")
    corpora = [quiet_load("folder", tmp_path, s, captions=False) for s in ("train", "test")]
    keys = sorted(key for corpus, _ in corpora for key in corpus["key"])
    assert keys == [*(f"{n}.png" for n in range(5)), "directory.jpg/inside.png"]
    for _, (said,) in corpora:
        for part in (
            *("2 .txt files", "1 .mov file", "1 Thumbs.db file", "1 file without a suffix"),
            *("1 folder @eaDir (Synology's thumbnails)", "1 folder __MACOSX", "1 empty file"),
            *("1 hidden folder .thumbnails", "1 hidden file", "1 macOS companion file (._)"),
            *("1 folder Previews.lrdata (Lightroom's previews)", "1 link that leads nowhere"),
            *("1 folder #recycle (deleted files)",),
        ):
            assert part in said


def test_heic_is_counted_where_its_decoder_is_missing(tmp_path, write, paint, monkeypatch):
    monkeypatch.setitem(walking.UNSUPPORTED, ".heic", "pip install 'clip-cascade[heif]'")
    paint(tmp_path / "a.png")
    for n in range(12):
        write(tmp_path / f"{n}.HEIC", f"{n}")
    said = walk(tmp_path).said(tmp_path)
    assert said == f"{tmp_path}: ignored 12 .heic files (pip install 'clip-cascade[heif]')"


def test_links_are_followed_and_loops_end_nothing(tmp_path, paint):
    paint(tmp_path / "data/a/1.png")
    paint(tmp_path / "elsewhere/2.png")
    os.symlink(tmp_path / "elsewhere", tmp_path / "data/linked")
    os.symlink(tmp_path / "data", tmp_path / "data/a/up")
    os.symlink(tmp_path / "data/b", tmp_path / "data/b")  # to itself
    assert walk(tmp_path / "data").images == ["a/1.png", "linked/2.png"]


@pytest.mark.skipif(os.name != "posix", reason="names of files are text there")
def test_a_name_that_is_no_text_is_passed_over(tmp_path, paint, quiet_load):
    paint(tmp_path / "a.png")
    try:
        paint(tmp_path / "b.png").rename(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png"))
    except OSError:
        pytest.skip("this file system takes no such name")
    corpus, (said,) = quiet_load("folder", tmp_path, captions=False)
    assert corpus["key"][:] == ["a.png"]
    assert "1 file or folder whose name isn't UTF-8" in said


def test_all_folders_of_a_split_are_joined(tmp_path, paint, write, quiet_load):
    for part in ("train_0", "train_1", "val2017"):
        paint(tmp_path / part / "x.png")
        described(tmp_path / part, write, ["x.png"])
    corpus, said = quiet_load("folder", tmp_path, "train")
    assert corpus["key"][:] == ["train_0/x.png", "train_1/x.png"]
    assert not said
    for part in ("train_0", "train_1", "val2017"):
        (tmp_path / part / "metadata.jsonl").unlink()
    corpus, _ = quiet_load("folder", tmp_path, "train", captions=False)
    assert corpus["key"][:] == ["train_0/x.png", "train_1/x.png"]


def test_what_lies_beside_the_metadata_or_the_splits_is_said(tmp_path, paint, write, quiet_load):
    paint(tmp_path / "train/x.png")
    paint(tmp_path / "train/forgotten.png")
    described(tmp_path / "train", write, ["x.png"])
    paint(tmp_path / "other/y.png")
    paint(tmp_path / "z.png")
    _, said = quiet_load("folder", tmp_path, "train")
    assert any("1 image that metadata.jsonl doesn't name, as forgotten.png" in s for s in said)
    assert any("ignored 2 images outside of train/ (first: other/y.png)" in s for s in said)


def test_an_imagefolder_says_what_it_does_not_read(tmp_path, paint, write, quiet_load):
    for n in range(5):
        paint(tmp_path / f"{n}.png")
    paint(tmp_path / "forgotten.png")
    write(tmp_path / "@eaDir/thumbnail.jpg", "thumbnail")
    write(tmp_path / "clip.mp4", "film")
    described(tmp_path, write, [f"{n}.png" for n in range(5)])
    corpora = [quiet_load("hub", tmp_path, s) for s in ("train", "test")]
    assert sorted(key for corpus, _ in corpora for key in corpus["key"]) == [
        f"train/{n}.png" for n in range(5)
    ]
    for _, said in corpora:
        assert any("1 .mp4 file" in text and "1 folder @eaDir" in text for text in said)


@pytest.mark.parametrize("corpus", ["folder", "hub"])
def test_a_file_name_never_leads_outside(corpus, tmp_path, paint, write, quiet_load):
    paint(tmp_path / "outside.png")
    data = tmp_path / "data"
    for n in range(10):
        paint(data / f"{n}.png")
    os.symlink(tmp_path / "outside.png", data / "linked.png")  # which the user made
    inside = [*(f"{n}.png" for n in range(10)), "linked.png"]
    if corpus == "folder":
        bad = ["../outside.png", str(tmp_path / "outside.png"), "a/../../outside.png", "."]
        described(data, write, inside + bad)
        loaded = [quiet_load("folder", data, s) for s in ("train", "test")]
        for _, said in loaded:
            assert sum("leads outside" in text for text in said) == len(bad)
    else:
        features = Features({"image": Image(decode=False), "text": Value("string")})
        bad = [str(tmp_path / "outside.png"), str(data / "../outside.png"), "outside.png"]
        paths = [str(data / name) for name in inside] + bad
        columns = {"image": [{"path": p, "bytes": None} for p in paths], "text": ["x"] * len(paths)}
        table = datasets.Dataset.from_dict(columns, features=features).data.table
        pyarrow.parquet.write_table(table, data / "train.parquet")
        for name in inside:  # parquet files and images in one directory are one or the other
            (data / name).rename(data / f"{name}.kept")
        loaded = [quiet_load("hub", data, s) for s in ("train", "test")]
        for _, said in loaded:
            assert sum("leads outside" in text for text in said) == len(bad)
    images = [image for corpus, _ in loaded for image in undecoded(corpus)["image"]]
    assert sorted(Path(image["path"]).name for image in images) == sorted(inside)


@pytest.mark.parametrize("name", ["imagefolder", "parquet", "json", "text", "csv", "webdataset"])
def test_a_directory_called_like_a_loader_is_that_directory(
    name, tmp_path, paint, write, monkeypatch, quiet_load
):
    monkeypatch.chdir(tmp_path)
    paint(tmp_path / "train/elsewhere.png")  # what the loader of that name would find
    for n in range(5):
        paint(tmp_path / name / f"{n}.png")
    described(tmp_path / name, write, [f"{n}.png" for n in range(5)])
    for directory in (name, f"./{name}", tmp_path / name):
        corpus, _ = quiet_load("hub", directory, "train")
        assert len(corpus) == 4
        assert all(text.startswith("text of") for (text,) in corpus["captions"])
    assert len(quiet_load(f"hub:./{name}", split="train")[0]) == 4
    with pytest.raises(CorpusError, match=rf"hub:\./{name} \(or --corpus hub --corpus-dir"):
        load_corpus(f"hub:{name}")
    monkeypatch.chdir(tmp_path / "train")
    with pytest.raises(CorpusError, match=f"{name} is a loader of the datasets library"):
        load_corpus(f"hub:{name}")


def test_a_name_of_the_hub_is_never_a_directory_in_passing(tmp_path, paint, write, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paint(tmp_path / "owner/name/1.png")
    described(tmp_path / "owner/name", write, ["1.png"])
    for name in ("owner/name", "hub:owner/name"):
        with pytest.raises(CorpusError, match=r"is a directory here .*hub:\./owner/name"):
            load_corpus(name)
    assert len(load_corpus("hub:./owner/name")) == 1
    with pytest.raises(CorpusError, match="no such directory"):
        load_corpus("hub:./nowhere")


def test_no_code_beside_a_data_set_is_run(tmp_path, paint, write):
    data = tmp_path / "data"
    write(data / "data.py", f"open({str(tmp_path / 'ran')!r}, 'w')\nraise SystemExit\n")
    paint(data / "1.png")
    described(data, write, ["1.png"])
    with pytest.raises(CorpusError, match="can't be loaded"):
        load_corpus("hub", data)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("['a dog', 'a cat']", ["a dog", "a cat"]),
        ('["a dog", "a cat"]', ["a dog", "a cat"]),
        ("""["it's", 'a "cat"']""", ["it's", 'a "cat"']),
        ("['a dog' 'a cat'\n 'a cow']", ["a dog", "a cat", "a cow"]),
        ("['a dog',\n 'a cat',]", ["a dog", "a cat"]),
        (r"['l\'eau', 'caf\xe9']", ["l'eau", "café"]),
        ("['only one']", ["only one"]),
        ("[a dog]", ["[a dog]"]),
        ("['a dog'] on grass", ["['a dog'] on grass"]),
        ("['a', 3]", ["['a', 3]"]),
        ("[1, 2]", ["[1, 2]"]),
        ("[]", ["[]"]),
        ("['a' + 'b']", ["['a' + 'b']"]),
        ("[" * 5000 + "]" * 5000, ["[" * 5000 + "]" * 5000]),
        (["['a', 'b']", "c"], ["a", "b", "c"]),
        ({"raw": "['a', 'b']"}, ["a", "b"]),
        (None, []),
    ],
)
def test_a_list_that_was_written_out_as_text_is_a_list_again(value, expected):
    assert texts(value) == expected


@pytest.mark.parametrize("corpus", ["folder", "hub"])
def test_written_lists_are_several_captions_in_folder_and_hub(corpus, tmp_path, paint, write):
    rows = []
    for n in range(5):
        paint(tmp_path / f"{n}.png")
        rows.append({"file_name": f"{n}.png", "captions": str([f"one of {n}", f"two of {n}"])})
    write(tmp_path / "metadata.jsonl", "\n".join(map(json.dumps, rows)))
    (captions,) = load_corpus(corpus, tmp_path)["captions"][:]
    assert [text[:3] for text in captions] == ["one", "two"]


def test_a_list_too_deep_or_a_number_too_long_is_one_line(tmp_path, paint, write, quiet_load):
    paint(tmp_path / "1.png")
    good = json.dumps({"file_name": "1.png", "text": "x"})
    write(tmp_path / "metadata.jsonl", "\n".join([good, "[" * 10**5, "1" * 10**5]))
    corpus, said = quiet_load("folder", tmp_path)
    assert len(corpus) == 1
    assert [f"metadata.jsonl:{n}: " in text for n, text in zip((2, 3), said, strict=True)]
