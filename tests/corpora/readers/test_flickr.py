import pytest

from corpora import CorpusError, CorpusWarning, load_corpus

HEADER = "image_name| comment_number| comment\n"
NAMES = [f"{n}.jpg" for n in range(1, 11)]


def karpathy(names):
    sides = ["train", "val", "test"]
    return {
        "images": [
            {"filename": name, "split": sides[n % 3], "sentences": [{"raw": f"raw {name}"}] * 5}
            for n, name in enumerate(names)
        ]
    }


@pytest.fixture
def flickr30k(tmp_path, paint, write):
    lines = [f"{name}| {n}|  Caption {n} of {name} .\n" for name in NAMES for n in range(5)]
    write(tmp_path / "results.csv", HEADER + "".join(lines))
    for name in NAMES:
        paint(tmp_path / "flickr30k_images" / name)
    return tmp_path


@pytest.fixture
def flickr8k(tmp_path, paint, write):
    lines = [f"{name}#{n}\tCaption {n} of {name} .\n" for name in NAMES for n in range(5)]
    write(tmp_path / "Flickr8k.token.txt", "".join(lines))
    for name in NAMES:
        paint(tmp_path / "Flicker8k_Dataset" / name)
    return tmp_path


def both_sides(load, name, directory):
    sides = [load(name, directory, split)[0] for split in ("train", "validation")]
    return {row["key"]: row for side in sides for row in side}


def test_flickr30k_has_every_image_with_its_five_captions(flickr30k, quiet_load):
    rows = both_sides(quiet_load, "flickr30k", flickr30k)
    assert sorted(rows) == sorted(NAMES)
    assert rows["7.jpg"]["captions"] == [f"Caption {n} of 7.jpg ." for n in range(5)]
    assert rows["7.jpg"]["image"].size == (6, 4)


def test_the_line_without_a_separator_is_reported_with_its_number(flickr30k, quiet_load):
    text = (flickr30k / "results.csv").read_text()
    broken = "2.jpg| 4|  Caption 4 of 2.jpg ."
    assert broken in text
    (flickr30k / "results.csv").write_text(text.replace(broken, "2.jpg| 4   A dog runs ."))
    with pytest.warns(UserWarning, match=r"results\.csv:11: not `name.jpg\| 0\| caption`"):
        load_corpus("flickr30k", flickr30k)
    rows = both_sides(quiet_load, "flickr30k", flickr30k)
    assert len(rows["2.jpg"]["captions"]) == 4


def test_pipes_windows_ends_a_byte_order_mark_and_unicode_survive(flickr30k, quiet_load):
    text = (flickr30k / "results.csv").read_text()
    text = text.replace("Caption 0 of 3.jpg .", "Ein Café | two signs: A|B \u2028 犬 .")
    (flickr30k / "results.csv").write_bytes(text.replace("\n", "\r\n").encode("utf-8-sig"))
    rows = both_sides(quiet_load, "flickr30k", flickr30k)
    assert sorted(rows) == sorted(NAMES)
    assert rows["3.jpg"]["captions"][0] == "Ein Café | two signs: A|B \u2028 犬 ."
    assert rows["4.jpg"]["captions"][4] == "Caption 4 of 4.jpg ."
    assert quiet_load("flickr30k", flickr30k)[1] == []


def test_an_archive_unpacked_into_itself_is_found(flickr30k, quiet_load):
    outer = flickr30k / "flickr30k_images"
    outer.rename(flickr30k / "inner")
    outer.mkdir()
    (flickr30k / "inner").rename(outer / "flickr30k_images")
    (flickr30k / "results.csv").rename(outer / "results.csv")
    assert len(both_sides(quiet_load, "flickr30k", flickr30k)) == 10


def test_the_publishers_own_token_file_is_read_where_there_is_no_csv(flickr30k, quiet_load):
    (flickr30k / "results.csv").unlink()
    lines = [f"{name}#{n}\tToken {n}\n" for name in NAMES for n in range(5)]
    (flickr30k / "results_20130124.token").write_text("".join(lines))
    rows = both_sides(quiet_load, "flickr30k", flickr30k)
    assert rows["1.jpg"]["captions"] == [f"Token {n}" for n in range(5)]


@pytest.mark.parametrize("name", ["flickr30k", "flickr8k"])
def test_karpathys_split_goes_before_any_other(name, request, write):
    directory = request.getfixturevalue(name)
    write(directory / f"dataset_{name}.json", karpathy(NAMES))
    write(directory / "Flickr_8k.testImages.txt", "1.jpg\n")
    sides = [load_corpus(name, directory, s)["key"][:] for s in ("train", "validation", "test")]
    assert sides == [NAMES[0::3], NAMES[1::3], NAMES[2::3]]
    assert load_corpus(name, directory, "test")[0]["captions"] == ["raw 3.jpg"] * 5


def test_a_missing_image_moves_no_other_across(flickr30k, quiet_load):
    before = load_corpus("flickr30k", flickr30k, "train")["key"][:]
    (flickr30k / "flickr30k_images" / before[0]).unlink()
    after, _ = quiet_load("flickr30k", flickr30k, "train")
    assert after["key"][:] == before[1:]


def test_flickr8k_names_an_image_that_was_never_published(flickr8k, quiet_load):
    bogus = "2258277193_586949ec62.jpg.1"
    with (flickr8k / "Flickr8k.token.txt").open("a") as file:
        file.writelines(f"{bogus}#{n}\tA dog .\n" for n in range(5))
    found = [quiet_load("flickr8k", flickr8k, split) for split in ("train", "validation")]
    assert sorted(key for corpus, _ in found for key in corpus["key"]) == sorted(NAMES)
    (problem,) = [problem for _, problems in found for problem in problems]
    assert bogus in problem
    assert problem.startswith("1 of ")


def test_flickr8k_is_split_as_its_publisher_does(flickr8k, write):
    write(flickr8k / "Flickr8k_text/Flickr_8k.trainImages.txt", "9.jpg\r\n2.jpg\r\n")
    write(flickr8k / "Flickr8k_text/Flickr_8k.devImages.txt", "4.jpg\n")
    write(flickr8k / "Flickr8k_text/Flickr_8k.testImages.txt", "5.jpg\n6.jpg")
    sides = [
        load_corpus("flickr8k", flickr8k, split)["key"][:]
        for split in ("train", "validation", "test")
    ]
    assert sides == [["9.jpg", "2.jpg"], ["4.jpg"], ["5.jpg", "6.jpg"]]


def test_an_image_in_two_lists_stays_held_out_and_is_reported(flickr8k, write, quiet_load):
    write(flickr8k / "Flickr_8k.trainImages.txt", "1.jpg\n2.jpg\n")
    write(flickr8k / "Flickr_8k.testImages.txt", "2.jpg\n")
    train, problems = quiet_load("flickr8k", flickr8k, "train")
    assert train["key"][:] == ["1.jpg"]
    assert "trainImages.txt:2: 2.jpg is in test already" in problems[0]
    assert quiet_load("flickr8k", flickr8k)[0]["key"][:] == ["2.jpg"]


@pytest.mark.parametrize(
    "folder", ["Flickr8k_Dataset", "Images", "Flicker8k_Dataset/Flicker8k_Dataset", "."]
)
def test_flickr8k_images_are_found_under_each_archives_name(flickr8k, folder, quiet_load):
    for name in NAMES:
        (flickr8k / folder).mkdir(parents=True, exist_ok=True)
        (flickr8k / "Flicker8k_Dataset" / name).rename(flickr8k / folder / name)
    rows = both_sides(quiet_load, "flickr8k", flickr8k)
    assert len(rows) == 10
    assert rows["1.jpg"]["image"].size == (6, 4)


def test_the_comma_separated_captions_file_is_read(flickr8k, write, quiet_load):
    (flickr8k / "Flickr8k.token.txt").unlink()
    text = 'image,caption\n1.jpg,A dog .\n1.jpg,"A dog , a ""red"" ball ."\n2.jpg A cat .\n'
    write(flickr8k / "captions.txt", text)
    write(flickr8k / "Flickr_8k.testImages.txt", "1.jpg\nimage\n")
    corpus, problems = quiet_load("flickr8k", flickr8k)
    assert corpus["captions"][:] == [["A dog .", 'A dog , a "red" ball .']]
    assert len(problems) == 1  # and no image is called "image"
    assert "captions.txt:4" in problems[0]


def test_a_file_name_may_hold_a_number_sign(flickr8k, paint, write):
    paint(flickr8k / "Flicker8k_Dataset/dog #2.jpg")
    write(flickr8k / "Flickr8k.token.txt", "dog #2.jpg#0\tA dog .\n")
    assert load_corpus("flickr8k", flickr8k)["key"][:] == ["dog #2.jpg"]


def test_malformed_token_lines_are_reported_each_with_its_number(flickr8k, quiet_load):
    with (flickr8k / "Flickr8k.token.txt").open("ab") as file:
        file.write(b"\n1.jpg#5 no tab\nno number\tA dog .\n1.jpg#6\t \n1.jpg#7\t caf\xe9\n")
    corpus, problems = quiet_load("flickr8k", flickr8k)
    assert [problem.split(": ")[0].rpartition(":")[2] for problem in problems] == [
        "52",
        "53",
        "54",
        "55",
    ]
    assert {len(captions) for captions in corpus["captions"]} == {5}


@pytest.mark.parametrize(
    ("name", "expected"), [("flickr30k", r"results\.csv"), ("flickr8k", r"Flickr8k\.token\.txt")]
)
def test_without_its_files_the_layout_is_named(name, expected, tmp_path):
    with pytest.raises(CorpusError, match=f"no {expected}; expected .*(flickr30k_images|Images)/"):
        load_corpus(name, tmp_path)


def test_a_file_without_a_single_caption_is_an_error(flickr8k, write):
    write(flickr8k / "Flickr8k.token.txt", "this\nis\nsomething else\n")
    with pytest.warns(CorpusWarning), pytest.raises(CorpusError, match="no line holds a caption"):
        load_corpus("flickr8k", flickr8k)


def test_images_somewhere_else_are_an_error_that_says_where_was_looked(flickr30k):
    (flickr30k / "flickr30k_images").rename(flickr30k / "photos")
    with pytest.raises(CorpusError, match=r"none of the 10 images .* looked in flickr30k_images/,"):
        load_corpus("flickr30k", flickr30k)
