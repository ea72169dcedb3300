"""The page in a real browser, over a server in a process of its own."""

import io
import os
import re
import shutil
import signal
import struct
import time
import zlib
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image

from cascade import Collection
from cascade.photos.finding import Photos
from cascade.upkeep import bring_up_to_date
from corpora.scenes import SEEDS, render, scene
from tests.cascade.calibrated.pair import CALIBRATION
from tests.cascade.calibrated.test_cutoff import CUTOFF
from tests.cascade.photos.conftest import encoded, painted
from tests.fresh import Process
from tests.lanes import thorough_only

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")

ROOT = Path(__file__).resolve().parents[3]
TOKEN = "correct horse battery"
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="module")
def chromium():
    as_root = ["--no-sandbox"] if os.geteuid() == 0 else []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=as_root)
        yield browser
        browser.close()


@contextmanager
def serving(place, *options, **environment):
    """A server of a collection, as a process: gives its address, and ends it."""
    environment = os.environ | environment
    line = ["-m", "cascade.serve", place, *options]
    running = Process(*map(str, line), cwd=ROOT, env=environment)
    said = Path(running.streams.name, "out")
    end = time.monotonic() + 120
    while not (said.exists() and (found := re.search(r"http://\S+", said.read_text()))):
        assert time.monotonic() < end
        time.sleep(0.05)
    try:
        yield found[0]
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait()


@pytest.fixture
def visit(chromium):
    """visit(address, refused=…, …) -> a page.

    At the end it has asked nobody else, and has complained of nothing but answers of the statuses
    that were to come, and of a server that has ended.
    """
    contexts, problems, asked = [], [], []

    def visit(address, refused=(), **how):
        how = {"viewport": {"width": 1280, "height": 800}, **how}
        contexts.append(chromium.new_context(**how))
        page = contexts[-1].new_page()
        page.set_default_timeout(60_000)
        page.on("request", lambda request: asked.append((request.url, address)))
        page.on("pageerror", lambda error: problems.append(str(error)))

        def complained(message):
            status = re.search(r"status of (\d+)", message.text)
            expected = int(status[1]) in refused if status else "net::ERR_" in message.text
            if message.type in ("error", "warning") and not expected:
                problems.append(message.text)

        page.on("console", complained)
        page.on("dialog", lambda dialog: problems.append(dialog.message))
        page.goto(address)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert not problems
    strange = [url for url, of in asked if urlsplit(url).netloc != urlsplit(of).netloc]
    assert not [url for url in strange if not url.startswith(("blob:http://127.0.0.1", "data:,"))]


def look_for(page, text):
    page.fill("#q", text)
    page.keyboard.press("Enter")
    ended(page)


def ended(page):
    """Wait until a search has ended, and all pictures that can be seen are there."""
    page.wait_for_selector("#results[aria-busy=false] #steps:not([hidden]) .total")
    page.wait_for_function("() => document.querySelector('.tile img').naturalWidth")


def names(page, list_=0):
    return page.locator(".grid").nth(list_).locator(".name").all_inner_texts()


def fits(page):
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def share(page):
    return page.evaluate("document.getElementById('pill-share').value")


def test_a_search_in_a_browser(visit, place, stages, tmp_path):
    """Photos to begin with, hits of all stages, one of them large, and the way back."""
    opened = tmp_path / "opened"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" >{opened}\n')
    browser.chmod(0o700)
    with serving(place, "--port", 0, "--open", BROWSER=f"{browser} %s") as address:
        page = visit(address)
        assert opened.read_text() == f"{address}\n"
        page.wait_for_selector(".tile a")
        assert page.locator(".tile").count() == 8
        look_for(page, "a red disc")
        assert urlsplit(page.url).query == "q=a+red+disc"
        assert page.locator("#steps li").count() == 4
        with Collection.open(place, stages) as collection:
            expected = [Path(hit.key).name for hit in collection.search("a red disc", 24)]
        assert names(page) == expected
        page.click(".tile a >> nth=1")
        page.wait_for_selector("#viewer[open]")
        assert page.inner_text("#viewer-name") == expected[1]
        page.wait_for_function("() => document.getElementById('viewer-image').naturalWidth")
        assert page.inner_text("#viewer-facts").count("/") > 1  # its path
        page.go_back()
        page.wait_for_selector("#viewer:not([open])", state="attached")
        assert urlsplit(page.url).query == "q=a+red+disc"
        page.go_back()
        page.wait_for_function(
            "() => document.getElementById('summary').textContent === '8 photos'"
        )


@pytest.fixture
def scenes(tmp_path):
    """A folder of scenes."""
    folder = tmp_path / "scenes"
    folder.mkdir()
    for number in range(40):
        render(scene(SEEDS["validation"], number)).save(folder / f"{number:02d}.png")
    return folder


@thorough_only
def test_indexing_and_refining_are_watched(visit, tmp_path, scenes):
    from cascade import Stage

    full = Stage.load(ROOT / "demo" / "clip-scenes")
    first = Stage.load(ROOT / "demo" / "clip-scenes-first", texts=full)
    place = tmp_path / "s.cascade"
    Collection.create(place, [first, full], m=[4]).close()
    with serving(place, "--port", 0) as address:
        page = visit(address)
        page.wait_for_selector("text=No photos yet")
        assert "cascade.index" in page.inner_text("#message")
        line = ["-m", "cascade.index", scenes, "--into", place]
        indexing = Process(*map(str, line), cwd=ROOT, env=dict(os.environ))
        page.wait_for_function(
            "() => document.getElementById('pill').textContent.startsWith('40 photos')"
        )
        assert indexing.wait().returncode == 0
        page.wait_for_selector(".tile a")
        look_for(page, "a red disc")
        page.wait_for_function("() => document.getElementById('pill-share').value > 0")
        assert share(page) == 4 / 40
        page.click("#collection-button")
        page.select_option("#refining-share", "0.5")
        page.click("#start-refining")
        page.wait_for_function("() => document.getElementById('pill-share').value > 0.1")
        page.wait_for_function("() => document.getElementById('pill-share').value === 0.5")
        page.wait_for_selector("text=Done: 16 encoded")
        page.select_option("#refining-share", "1")
        page.click("#start-refining")
        page.wait_for_function("() => document.getElementById('pill-share').value === 1")
        page.click("#close-collection")
        look_for(page, "a blue star")
        assert "new" not in page.inner_text("#steps")


def bomb() -> bytes:
    """A PNG of 40,000 x 40,000 pixels, as its header says."""
    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def large_jpeg() -> bytes:
    stream = io.BytesIO()
    Image.effect_noise((300, 300), 90).convert("RGB").save(stream, "JPEG")
    return stream.getvalue()


BAD = {
    "notes <b>.txt": (b"no picture", "no image that can be read"),
    "cut.jpg": (large_jpeg()[:700], "damaged"),
    "bomb.png": (bomb(), "more than the 50,000,000 pixels"),
}


@thorough_only
def test_a_picture_that_is_none_is_refused_with_its_reason(visit, place):
    with serving(place, "--port", 0, "--allow-upload") as address:
        page = visit(address, refused=(422,))
        page.wait_for_selector(".tile a")
        for name, (content, reason) in BAD.items():
            page.set_input_files(
                "#picture", {"name": name, "mimeType": "image/png", "buffer": content}
            )
            page.wait_for_selector(f"#problem:has-text('{reason}')")
            assert name in page.inner_text("#chips")
        good = {"name": "orange.png", "mimeType": "image/png", "buffer": encoded("orange")}
        page.set_input_files("#picture", good)
        ended(page)
        assert page.is_hidden("#problem")
        page.wait_for_function("() => document.querySelector('#chips img').naturalWidth")
        page.reload()
        page.wait_for_selector("#problem:has-text('choose it again')")
        page.click("#collection-button")
        files = [
            {"name": name, "mimeType": "", "buffer": content} for name, (content, _) in BAD.items()
        ]
        page.set_input_files("#files", [*files, good])
        page.wait_for_selector("#adding-state:has-text('1 photo added')")
        problems = page.inner_text("#adding-problems")
        assert all(
            f"{name}: " in problems and reason in problems for name, (_, reason) in BAD.items()
        )
        page.wait_for_function(
            "() => document.getElementById('pill').textContent.startsWith('9 photos')"
        )


@thorough_only
def test_all_can_be_done_by_keys(visit, place):
    with serving(place, "--port", 0) as address:
        page = visit(address)
        page.wait_for_selector(".tile a")
        page.keyboard.press("/")
        page.keyboard.type("a red disc/star")
        page.keyboard.press("Enter")
        ended(page)
        assert page.input_value("#q") == "a red disc/star"
        found = names(page)
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("Enter")
        page.wait_for_selector("#viewer[open]")
        assert page.inner_text("#viewer-name") == found[1]
        page.keyboard.press("ArrowRight")
        page.wait_for_function(
            f"() => document.getElementById('viewer-name').textContent === '{found[2]}'"
        )
        page.keyboard.press("Escape")
        page.wait_for_selector("#viewer:not([open])", state="attached")
        focused = "document.activeElement.closest('.tile')?.querySelector('.name').textContent"
        page.wait_for_function(f"() => {focused} === '{found[2]}'")
        page.keyboard.press("Tab")  # from the photo to "more like this"
        page.keyboard.press("Enter")
        page.wait_for_function("() => location.search.startsWith('?like=')")
        ended(page)
        assert names(page)[0] == found[2]
        page.keyboard.press("ArrowUp")


@thorough_only
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_it_fits_a_phone_by_day_and_by_night(visit, place, photos, colours):
    painted(photos / f"{'a long name ' * 15}.png")
    with serving(place, "--port", 0) as address:
        page = visit(
            f"{address}/?q=a+red+disc&without={'long' * 60}", color_scheme=colours, **PHONE
        )
        ended(page)
        fits(page)
        light = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (int(re.findall(r"\d+", light)[0]) > 128) == (colours == "light")
        page.tap("#compare")
        page.wait_for_selector("#columns.two")
        fits(page)
        page.tap("#more-options summary")
        box = page.locator(".panel").bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 360
        page.tap("#more-options summary")
        page.tap(".grid >> nth=1 >> a >> nth=0")
        page.wait_for_selector("#viewer[open]")
        fits(page)
        page.tap("#close-viewer")
        page.tap("#collection-button")
        fits(page)


@thorough_only
def test_names_are_text_whatever_they_hold(visit, place, photos, stages):
    strange = [
        "<img src=x onerror=alert(1)>\n.png",
        "\u202egnp.exe.png",
        "'\"&amp;.png",
        "q#1?.png",
    ]
    for name in strange:
        painted(photos / name)
    painted(Path(os.fsdecode(os.fsencode(photos) + b"/\xff\xfe.png")))
    (photos / "<b>bad<b>.png").write_bytes(b"no picture")
    with Collection.open(place, stages) as collection:
        bring_up_to_date(collection, Photos.at([str(photos)]))
    with serving(place, "--port", 0) as address:
        page = visit(f"{address}/?q=%3Cimg+src%3Dx+onerror%3Dalert(1)%3E")
        ended(page)
        shown = names(page)
        assert "<img src=x onerror=alert(1)>\u240a.png" in shown
        assert "\ufffdgnp.exe.png" in shown
        assert "'\"&amp;.png" in shown
        assert "%FF%FE.png" in shown
        assert page.locator("img[onerror], #summary img, bdi img, b b").count() == 0
        assert page.inner_text("#summary") == "“<img src=x onerror=alert(1)>”"
        page.click(f".tile a >> nth={shown.index('q#1?.png')}")
        page.wait_for_function("() => document.getElementById('viewer-image').naturalWidth")
        with page.expect_download() as saved:
            page.click("#viewer-save")
        assert saved.value.suggested_filename in ("1_.png", "q#1_.png")
        page.keyboard.press("Escape")
        page.click("#collection-button")
        page.click("#skipped-summary")
        page.wait_for_selector("#skipped-files:has-text('<b>bad<b>.png: ')")


@thorough_only
def test_stages_stand_side_by_side(visit, place, stages):
    with serving(place, "--port", 0) as address:
        page = visit(f"{address}/?q=a+red+disc&k=3&compare=1")
        ended(page)
        with Collection.open(place, stages) as collection:
            expected = [Path(hit.key).name for hit in collection.search("a red disc", 3)]
            first = collection.cascade.search_embeddings(
                collection.encode_texts(["a red disc"]), 3, m=[1]
            )
        assert names(page, 1) == expected
        assert sorted(names(page, 0)) == sorted(expected)  # of three candidates three hits
        assert names(page, 0)[0] == Path(first[0][0].key).name
        for list_ in (0, 1):
            page.locator(".grid").nth(list_).locator("a").nth(2).click()
            page.wait_for_selector("#viewer[open]")
            assert page.inner_text("#viewer-name") == names(page, list_)[2]
            page.keyboard.press("Escape")
            page.wait_for_selector("#viewer:not([open])", state="attached")
        page.click("#compare")
        page.wait_for_selector("#columns.one")
        assert names(page) == expected


@thorough_only
def test_that_nothing_matches_is_said_and_m_may_be_as_each_search_needs(visit, place, stages):
    names_ = tuple(stage.name for stage in stages)
    nothing = replace(CUTOFF, stages=names_, m=3, threshold=2.0, images=8)
    with Collection.open(place, stages) as collection:
        collection.adopt([3], None, None, nothing)
    with serving(place, "--port", 0) as address:
        page = visit(f"{address}/?q=a+red+disc")
        ended(page)
        assert "Nothing in here matches well" in page.inner_text("#message")
        assert page.locator(".tile a").count() == 8
        page.click("#more-options summary")
        assert page.is_hidden("#of-calibrated")
        page.click(".brand")
        page.wait_for_selector("#message", state="hidden")
    learnt = replace(CALIBRATION, stages=names_, k=12, depth=6, images=8)
    with Collection.open(place, stages) as collection:
        collection.adopt([3], None, learnt)
    with serving(place, "--port", 0) as address:
        page = visit(f"{address}/?q=a+red+disc")
        ended(page)
        page.click("#more-options summary")
        page.check("#auto")
        page.wait_for_function("() => location.search === '?q=a+red+disc&k=12&m=auto'")
        ended(page)
        assert page.is_disabled("#m")
        assert page.is_hidden("#message")
        page.select_option("#k", "48")  # more hits than it is calibrated for
        page.wait_for_function("() => location.search === '?q=a+red+disc&k=48'")
        ended(page)
        assert not page.is_checked("#auto")
        other = visit(f"{address}/?q=a+red+disc&k=4&m=auto")
        ended(other)
        other.click("#more-options summary")
        assert other.is_checked("#auto")


@thorough_only
def test_an_address_holds_the_whole_search(visit, place, collection, photos):
    number = collection.id_of(str(photos / "5.png"))
    with serving(place, "--port", 0) as address:
        one = visit(address)
        one.wait_for_selector(".tile a")
        look_for(one, "disc")
        one.click("#more-options summary")
        one.fill("#without", "red star")
        one.keyboard.press("Enter")
        one.wait_for_selector(".chip:has-text('without red star')")
        one.select_option("#k", "12")
        one.fill("#m", "5")
        one.check("#refined")
        one.wait_for_function("() => location.search.includes('refined=1')")
        ended(one)
        query = urlsplit(one.url).query
        assert query == "q=disc&without=red+star&k=12&m=5&refined=1"
        other = visit(one.url)
        ended(other)
        assert names(other) == names(one)
        assert "5 ranked" in other.inner_text("#steps")
        assert other.input_value("#m") == "5"
        like = visit(f"{address}/?like={number}&photo={number}&k=nonsense&m=-1")
        like.wait_for_selector("#viewer[open]")
        assert like.inner_text("#viewer-name") == "5.png"
        like.keyboard.press("Escape")
        like.wait_for_selector("#viewer:not([open])", state="attached")
        assert names(like)[0] == "5.png"
        like.click(".chip button")
        like.wait_for_function("() => location.search === ''")


@thorough_only
def test_a_token_is_asked_for_once_and_is_in_no_address(visit, place):
    with serving(place, "--port", 0, "--host", "0.0.0.0", CLIP_CASCADE_TOKEN=TOKEN) as address:
        home = f"http://127.0.0.1:{urlsplit(address).port}"
        page = visit(f"{home}/?q=disc", refused=(401,))
        page.wait_for_selector("#sign-in[open]")
        page.fill("#token", "wrong")
        page.keyboard.press("Enter")
        page.wait_for_selector("#sign-in-problem:has-text('the token')")
        page.fill("#token", TOKEN)
        page.keyboard.press("Enter")
        ended(page)
        (cookie,) = page.context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"], TOKEN in cookie["value"]) == (
            True,
            "Strict",
            False,
        )
        assert (
            page.evaluate("document.cookie + JSON.stringify({...localStorage, ...sessionStorage})")
            == "{}"
        )
        page.reload()
        ended(page)
        assert urlsplit(page.url).query == "q=disc"
        page.click("#collection-button")
        page.click("#sign-out")
        page.wait_for_selector("#sign-in[open]")


@thorough_only
def test_a_server_that_was_away_is_gone_on_with(visit, place):
    with serving(place, "--port", 0) as address:
        port = urlsplit(address).port
        page = visit(f"{address}/?q=disc")
        ended(page)
    look = "document.getElementById('away')"
    page.wait_for_function(f"() => !{look}.hidden")
    page.fill("#q", "star")
    page.keyboard.press("Enter")
    page.wait_for_timeout(500)
    assert page.locator(".tile a").count() == 0
    with serving(place, "--port", port):
        page.wait_for_function(f"() => {look}.hidden")
        ended(page)
        assert page.locator(".tile a").count() == 8
