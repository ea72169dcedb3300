"""What a page shows beside hits: seconds of each stage, images in order, what was skipped and
goes on in the background, and pictures that a browser keeps."""

import json
import time

import pytest

from cascade import Collection
from cascade.photos.finding import Photos
from cascade.upkeep import bring_up_to_date
from tests.cascade.photos.conftest import painted
from tests.cascade.serving.test_api import asked, id_of, refused


def test_a_search_says_what_each_stage_did(client, collection):
    found = asked(client, text="disc", k=4)
    first, last = found["steps"]
    assert (first["stage"], first["images"], first["encoded"]) == (0, 8, 0)
    assert (last["stage"], last["images"], last["encoded"]) == (1, 3, 3)
    taken = [step[f"{what}_seconds"] for step in found["steps"] for what in ("encoding", "ranking")]
    assert 0 < sum(taken) + found["embedding_seconds"] <= found["seconds"]
    assert asked(client, text="disc", k=4)["steps"][1]["encoded"] == 0
    with client.stream("POST", "/search/stream", json={"text": "star", "k": 4}) as answer:
        early, late = map(json.loads, answer.iter_lines())
    assert [len(early["steps"]), len(late["steps"])] == [1, 2]
    assert late["steps"][0] == early["steps"][0]


def test_images_are_listed_in_order_and_spread(client, collection):
    keys = [row.key for row in collection.rows()]

    def listed(**how):
        answer = client.get("/images", params=how)
        assert answer.status_code == 200
        return [image["key"] for image in answer.json()["images"]]

    assert listed() == keys
    assert listed(start=2, limit=3) == keys[2:5]
    assert listed(start=1, step=3) == keys[1::3]
    assert listed(start=8) == listed(start=2**63 - 1, step=2**63 - 1) == []
    image = client.get("/images").json()["images"][3]
    assert image["id"] == collection.id_of(keys[3])
    assert client.get(image["image"]).status_code == 200
    for wrong in ({"start": -1}, {"step": 0}, {"limit": 0}, {"limit": 1001}):
        refused(client.get("/images", params=wrong), 422)


def test_a_browser_never_shows_the_picture_of_another_collection(
    client, collection, photos, tmp_path, stages, served
):
    number = id_of(collection, photos / "3.png")
    (hit,) = asked(client, like=[number], k=1, m=8)["hits"]
    kept = client.get(hit["thumbnail"])
    assert "immutable" in kept.headers["cache-control"]
    assert "no-cache" in client.get(f"/images/{number}/thumbnail").headers["cache-control"]
    tag = kept.headers["etag"]
    known = client.get(hit["thumbnail"], headers={"If-None-Match": tag})
    assert (known.status_code, known.content) == (304, b"")
    other = client.get(hit["thumbnail"] + "&size=32", headers={"If-None-Match": tag})
    assert other.status_code == 200
    painted(photos / "3.png", "white")  # another picture, perhaps even under the same number
    collection.remove([str(photos / f"{name}.png") for name in range(8)])
    collection.add([str(photos / "3.png")])
    for place in (hit["thumbnail"], hit["image"]):
        refused(client.get(place), 404)
    again = hit["thumbnail"].replace(f"/{number}/", f"/{id_of(collection, photos / '3.png')}/")
    refused(client.get(again, headers={"If-None-Match": tag}), 404)


@pytest.mark.parametrize(
    ("name", "saved"),
    [
        ("a.html", "a.png"),
        ('"; x="y.png', "_ x_y.png"),
        ("\n\r.png", "_.png"),
        ("..png", "image.png"),
        ("ü" * 100, "_.png"),
    ],
)
def test_a_download_has_a_name_that_says_what_it_is(client, collection, photos, name, saved):
    content = (photos / "2.png").read_bytes()
    (photos / name).write_bytes(content)
    collection.add([str(photos / name)])
    number = id_of(collection, photos / name)
    answer = client.get(f"/images/{number}?download=true")
    assert answer.headers["content-disposition"] == f'attachment; filename="{saved}"'
    assert answer.content == content
    assert client.get(f"/images/{number}").headers["content-disposition"] == "inline"


def test_skipped_files_are_listed_with_their_reasons(client, collection, photos):
    bad = photos / "<b>bad<b>\n.png"
    bad.write_bytes(b"no picture")
    (photos / "empty.png").touch()
    bring_up_to_date(collection, Photos.at([str(photos)]))
    found = client.get("/skipped").json()
    assert found["count"] == sum(client.get("/status").json()["skipped"].values()) == 2
    assert {entry["key"]: entry["reason"] for entry in found["skipped"]} == collection.skipped
    some = client.get("/skipped?start=1&limit=5").json()
    assert (some["skipped"], some["count"]) == (found["skipped"][1:], 2)
    refused(client.get("/skipped?limit=0"), 422)


def wait_until(client, state):
    while (found := client.get("/status").json()["refining"])["state"] != state:
        assert found["state"] == "working"
    return found


def test_refining_is_started_and_stopped(client, collection):
    assert client.delete("/refining").json() == {"refining": None}
    answer = client.post("/refining", json={"share": 0.5}).json()["refining"]
    assert answer["share"] == 0.5
    assert wait_until(client, "done")["encoded"] == 4
    collection.flush()
    assert collection.status().encoded == (8, 4)
    assert client.post("/refining", json={}).status_code == 200
    assert wait_until(client, "done")["encoded"] == 4  # the other half, counted anew
    assert client.delete("/refining").json()["refining"]["state"] == "done"
    for wrong in (
        {"share": 1.5},
        {"seconds": 0},
        {"seconds": 1e300},
        {"images": 3},
        {"share": "x"},
    ):
        refused(client.post("/refining", json=wrong), 422)


def test_refining_that_is_stopped_says_so_and_keeps_what_it_has(client, collection, monkeypatch):
    refine = collection.refine

    def slow(budget, stop, progress):
        stop.wait(10)
        return refine(budget, stop, progress)

    monkeypatch.setattr(collection, "refine", slow)
    client.post("/refining", json={})
    begun = time.monotonic()
    assert client.delete("/refining").json()["refining"]["state"] == "stopped"
    assert time.monotonic() - begun < 5
    client.post("/refining", json={"seconds": 100})
    client.post("/refining", json={"share": 0.25})  # in place of the other
    assert client.get("/status").json()["refining"]["share"] == 0.25
    client.delete("/refining")


def test_one_stage_has_nothing_to_refine(tmp_path, stages, photos):
    from starlette.testclient import TestClient

    from cascade.serving.running import Allowed, guarded

    with Collection.in_memory(stages[:1]) as collection:
        client = TestClient(guarded(collection, Allowed()), "http://localhost")
        assert "nothing to refine" in refused(client.post("/refining", json={}), 422)
        collection.add([str(photos / "1.png")])
        assert len(asked(client, text="disc")["steps"]) == 1
