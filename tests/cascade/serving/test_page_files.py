"""The page's files, who may read them, and sessions of browsers; without a browser."""

import re

import pytest

from tests.cascade.serving.test_api import asked, id_of, refused

TOKEN = "correct horse battery"
LINK = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


@pytest.fixture
def strange(served):
    """A client that knows no token, of a server that other machines reach."""
    from cascade.serving.page.files import OPEN

    assert len(OPEN) > 5
    return served(base_url="http://photos.example", token=TOKEN, loopback=False)


def test_all_that_the_page_names_is_there_and_nothing_is_elsewhere(reading):
    from cascade.serving.page.files import OPEN

    named = {"/"}
    for path in sorted(OPEN):
        answer = reading.get(path)
        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'self'; script-src 'self'; style-src 'self'; ")
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        text = answer.text.replace("http://www.w3.org/2000/svg", "")
        assert not re.search("https?:|//[a-z]+[.]|innerHTML|outerHTML|insertAdjacent|eval", text)
        assert not re.search(
            r"<script(?! type=\"module\" src=)|<style|\sstyle=|\son[a-z]+=\"", text
        )
        named |= set(re.findall(r"\"(/page/[a-z.]+)\"", text))
        named |= {f"/page/{name}" for name in re.findall(r"from \"[.]/([a-z]+[.]js)\"", text)}
        known = reading.get(path, headers={"If-None-Match": answer.headers["etag"]})
        assert (known.status_code, known.content) == (304, b"")
    assert named == OPEN


def test_every_name_that_the_scripts_look_for_is_on_the_page(reading):
    from cascade.serving.page.files import OPEN

    page = reading.get("/").text
    for path in OPEN:
        for name in re.findall(r"byId\(\"([a-z-]+)\"\)", reading.get(path).text):
            assert f'id="{name}"' in page, (path, name)


def test_the_files_need_no_token_and_all_else_does(strange):
    from cascade.serving.page.files import OPEN

    for path in OPEN:
        assert strange.get(path).status_code == 200
        refused(strange.post(path), 401)
    for path in ("/status", "/docs", "/openapi.json", "/images/1", "/page/", "/page/nothing.js"):
        refused(strange.get(path), 401)


def test_a_link_leads_to_the_page_and_to_nothing_else(reading):
    assert reading.get("/?q=disc", headers=LINK).status_code == 200
    for path in ("/status", "/docs", "/images/0", "/images/0/thumbnail", "/page/start.js"):
        refused(reading.get(path, headers=LINK), 403)
    for change in ({"Sec-Fetch-Mode": "no-cors"}, {"Sec-Fetch-Dest": "iframe"}):
        refused(reading.get("/", headers=LINK | change), 403)
    refused(reading.post("/session", headers=LINK), 403)
    refused(reading.get("/", headers=LINK | {"Host": "evil.example"}), 421)


def test_a_session_stands_for_the_token_until_it_ends(strange, collection, photos):
    number = id_of(collection, photos / "1.png")
    for given in ("", f"Bearer {TOKEN}x"):
        refused(strange.post("/session", headers={"Authorization": given}), 401)
    answer = strange.post("/session", headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 204
    cookie = answer.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    assert TOKEN not in cookie
    assert "Secure" not in cookie
    assert strange.get(f"/images/{number}/thumbnail").status_code == 200
    assert asked(strange, text="disc")["hits"]
    ended = strange.delete("/session")
    assert (ended.status_code, "Max-Age=0" in ended.headers["set-cookie"]) == (204, True)
    refused(strange.get(f"/images/{number}/thumbnail"), 401)


def test_a_cookie_of_another_token_or_a_made_up_one_is_no_session(strange):
    from cascade.serving.sessions import Sessions

    own, other = Sessions(TOKEN), Sessions("another token, as long")
    assert own.name != other.name
    value = other.cookie(False).partition(";")[0].partition("=")[2]
    for cookie in (
        f"{own.name}={value}",
        f"{own.name}=",
        f"{own.name}={TOKEN}",
        "\xff=\xfe;;=",
        "=",
    ):
        refused(strange.get("/status", headers={"Cookie": cookie.encode("latin-1")}), 401)
    right = own.cookie(True)
    assert right.endswith("; Secure")
    assert strange.get("/status", headers={"Cookie": right.partition(";")[0]}).status_code == 200


def test_where_no_token_is_needed_a_session_is_nothing(client):
    answer = client.post("/session")
    assert (answer.status_code, "set-cookie" in answer.headers) == (204, False)
    assert client.get("/status").json()["token"] is False
