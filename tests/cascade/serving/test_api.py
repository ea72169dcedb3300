"""What the API answers: the collection's own hits, its own images, and nothing else."""

import base64
import io
import json
import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from PIL import Image

from cascade import Collection, ImageRow
from cascade.serving.texts import TextBatches
from tests.cascade.calibrated.pair import CALIBRATION
from tests.cascade.calibrated.test_cutoff import CUTOFF
from tests.cascade.photos.conftest import encoded, packed, painted
from tests.cascade.serving.conftest import HOME
from tests.conftest import SENTENCE
from tests.lanes import THOROUGH, examples


def asked(client, status=200, to="/search", **request):
    """What a search is answered."""
    answer = client.post(to, json=request)
    assert answer.status_code == status, answer.text
    return answer.json()


def refused(answer, status):
    """The one line that an answer is refused with."""
    assert answer.status_code == status, answer.text
    said = answer.json()
    assert list(said) == ["error"]
    assert said["error"]
    assert len(said["error"].splitlines()) == 1
    return said["error"]


def keys_of(hits):
    return [(hit["key"], pytest.approx(hit["score"], abs=1e-5), hit["stage"]) for hit in hits]


def id_of(collection, path) -> int:
    return collection.id_of(str(path))


# -- search


def test_hits_are_those_of_the_collection(client, collection):
    for text in SENTENCE.split()[:6]:
        expected = collection.search(text, 5)
        hits = asked(client, text=text, k=5)["hits"]
        assert [(hit["key"], hit["score"], hit["stage"]) for hit in hits] == [
            (hit.key, hit.score, hit.stage) for hit in expected
        ]
        assert [hit["id"] for hit in hits] == [collection.id_of(hit.key) for hit in expected]
        assert client.get(hits[0]["image"]).status_code == 200
        assert client.get(hits[0]["thumbnail"]).status_code == 200


def test_a_hit_that_is_removed_before_the_answer_makes_room_for_the_next(
    client, collection, monkeypatch
):
    best = asked(client, text="disc", k=3)["hits"][0]["key"]
    numbered = Collection.numbered

    def late(self, keys):
        if len(self) == 8:
            self.remove([best])
        return numbered(self, keys)

    monkeypatch.setattr(Collection, "numbered", late)
    found = [hit["key"] for hit in asked(client, text="disc", k=3)["hits"]]
    assert len(found) == 3
    assert best not in found
    assert found == [hit.key for hit in collection.search("disc", 3)]


def test_an_image_finds_itself_by_its_number_and_by_its_bytes(client, collection, photos):
    path = photos / "5.png"
    number = id_of(collection, path)
    sent = base64.b64encode(path.read_bytes()).decode()
    for request in ({"like": [number]}, {"image": sent}):
        (hit,) = asked(client, k=1, m=8, **request)["hits"]
        assert hit["id"] == number
        assert hit["score"] == pytest.approx(1, abs=1e-3)


def test_what_is_not_wanted_and_m_count(client, collection):
    alone = asked(client, text="disc", k=8)["hits"]
    assert [hit["stage"] for hit in alone] == [1] * 3 + [0] * 5
    assert {hit["stage"] for hit in asked(client, text="disc", k=8, m=8)["hits"]} == {1}
    less = asked(client, text="disc", without=["red star"], k=8)["hits"]
    assert [hit["score"] for hit in less] != [hit["score"] for hit in alone]
    assert collection.m == (3,)


def test_as_many_candidates_as_a_query_needs_and_how_sure_hits_are(client, collection):
    wanted = {"text": "disc", "k": 4, "m": "auto"}
    assert "needs a calibration" in refused(client.post("/search", json=wanted), 422)
    names = tuple(stage.name for stage in collection.stages)
    learnt = replace(CALIBRATION, stages=names, k=4, depth=6, images=len(collection))
    collection.adopt([3], None, learnt)
    hits = asked(client, **wanted)["hits"]
    (expected,) = collection.search_embeddings(collection.encode_texts(["disc"]), 4, m="auto")
    assert [(hit["key"], hit["probability"]) for hit in hits] == [
        (hit.key, pytest.approx(hit.probability)) for hit in expected
    ]
    assert {hit["probability"] for hit in asked(client, text="disc", k=3)["hits"]} == {None}
    refused(client.post("/search", json=wanted | {"m": "all"}), 422)
    refused(client.post("/search", json=wanted | {"m": 0}), 422)


def test_that_nothing_matches_is_said_of_a_text(client, collection):
    names = tuple(stage.name for stage in collection.stages)
    nothing = replace(CUTOFF, stages=names, m=3, threshold=2.0, images=len(collection))
    assert asked(client, text="disc")["matches"] is None
    collection.adopt([3], None, None, nothing)
    answer = asked(client, text="disc")
    assert (answer["matches"], len(answer["hits"])) == (False, 8)
    assert asked(client, text="disc", m=2)["matches"] is None
    assert asked(client, text="disc", without=["star"])["matches"] is None
    assert asked(client, like=[collection.id_of(answer["hits"][0]["key"])])["matches"] is None
    lines = client.post("/search/stream", json={"text": "disc"}).text.splitlines()
    assert [json.loads(line)["matches"] for line in lines] == [None, False]
    collection.adopt([3], None, None, replace(nothing, threshold=-2.0))
    assert asked(client, text="disc")["matches"] is True


def test_the_first_stages_hits_come_first_and_then_all_stages(client, collection):
    with client.stream("POST", "/search/stream", json={"text": "disc", "k": 4}) as answer:
        assert answer.headers["content-type"].startswith("application/x-ndjson")
        first, final = map(json.loads, answer.iter_lines())
    assert [first["event"], final["event"]] == ["first", "final"]
    assert {hit["stage"] for hit in first["hits"]} == {0}
    assert len(first["hits"]) == 4
    assert final["hits"] == asked(client, text="disc", k=4)["hits"]
    assert refused(client.post("/search/stream", json={"k": 4}), 422).startswith("say what")


def test_searches_at_once_are_right_and_nothing_is_encoded_twice(client, collection, photos):
    texts = SENTENCE.split() * 2
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda text: asked(client, text=text, k=5), texts))
    for text, answer in zip(texts, answers, strict=True):
        expected = collection.search(text, 5)
        assert keys_of(answer["hits"]) == [(hit.key, hit.score, hit.stage) for hit in expected]
    collection.flush()
    assert collection.status().waiting == 0


def test_texts_that_wait_are_encoded_together():
    begun, go, batches = threading.Event(), threading.Event(), []

    def encode(texts):
        batches.append(list(texts))
        begun.set()
        assert go.wait(10)
        if "bad" in texts:
            raise ValueError("bad")
        return [torch.tensor([[float(text)] for text in texts])]

    shared = TextBatches(encode, batch_size=3)
    with ThreadPoolExecutor(8) as threads:
        first = threads.submit(shared, ["0"])
        assert begun.wait(10)
        others = [threads.submit(shared, [str(number)]) for number in range(1, 5)]
        while len(shared._waiting) < 5:
            pass
        go.set()
        assert [job.result()[0].item() for job in (first, *others)] == [0, 1, 2, 3, 4]
        assert sorted(map(len, batches)) == [1, 1, 3]
        jobs = {text: threads.submit(shared, [text]) for text in ("1", "bad", "2")}
        with pytest.raises(ValueError, match="bad"):
            jobs["bad"].result()
        assert [jobs[text].result()[0].item() for text in "12"] == [1, 2]


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({}, "say what to look for"),
        ({"text": " "}, "text"),
        ({"text": "x" * 1001}, "text"),
        ({"text": "x", "k": 0}, "k"),
        ({"text": "x", "k": 1001}, "k"),
        ({"text": "x", "k": 1.5}, "k"),
        ({"text": "x", "k": True}, "k"),
        ({"text": "x", "m": 0}, "m"),
        ({"text": "x", "m": 1001}, "m"),
        ({"text": "x", "colour": 1}, "colour"),
        ({"text": "x", "without": ["y"] * 9}, "without"),
        ({"text": "disc", "without": ["disc"]}, "nothing is left"),
        ({"image": "no base64!"}, "base64"),
        ({"image": base64.b64encode(b"no picture").decode()}, "no image"),
        ({"image": base64.b64encode(encoded("red")[:60]).decode()}, "damaged"),
        ({"like": [1] * 9}, "like"),
        ({"like": ["../x"]}, "like"),
        ({"like": [2**80]}, "like"),
    ],
)
def test_what_is_wrong_with_a_search_is_one_line(reading, request_, said):
    assert said in refused(reading.post("/search", json=request_), 422)
    assert said in refused(reading.post("/search/stream", json=request_), 422)


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"text": "\\ud800"}', b'{"text": "x", "k": 1e999}', b"[" * 100_000]
)
def test_what_is_no_json_is_one_line(reading, body):
    answer = reading.post("/search", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    refused(answer, answer.status_code)


def test_a_number_that_no_image_has_is_said(reading):
    assert refused(reading.post("/search", json={"like": [999]}), 404) == "there is no image 999"
    refused(reading.get("/images/999"), 404)
    refused(reading.get(f"/images/{2**63}"), 422)
    refused(reading.get("/nothing"), 404)
    refused(reading.delete("/images/1"), 405)
    refused(reading.get("/images/1/thumbnail?size=100000"), 422)


# -- images


def test_an_image_is_given_out_as_it_is_and_a_thumbnail_is_small(client, collection, tmp_path):
    path = painted(tmp_path / "wide.png", size=(300, 100))
    with client:
        answer = client.post("/images", content=path.read_bytes())
    assert refused(answer, 403).startswith("uploads are not allowed")
    collection.add(
        [ImageRow(str(path), path.as_uri(), path.stat().st_size, path.stat().st_mtime_ns)]
    )
    number = id_of(collection, path)
    answer = client.get(f"/images/{number}")
    assert answer.content == path.read_bytes()
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-content-type-options"] == "nosniff"
    answer = client.get(f"/images/{number}/thumbnail?size=64")
    assert answer.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(answer.content)).size == (64, 21)


def test_an_image_in_a_tar_is_given_out(client, collection, tmp_path):
    from cascade.photos.finding import Photos
    from cascade.upkeep import bring_up_to_date

    archive = packed(tmp_path / "s.tar", {"a.png": encoded("red"), "b.png": encoded("blue")})
    bring_up_to_date(collection, Photos.at([str(archive)]))
    number = id_of(collection, f"{archive}#b.png")
    assert client.get(f"/images/{number}").content == encoded("blue")
    packed(archive, {"a.png": encoded("red"), "b.png": encoded("green")})
    refused(client.get(f"/images/{number}"), 409)


@pytest.mark.parametrize("kind", ["link", "other content", "link of the same size and time"])
def test_another_file_at_the_place_of_an_image_is_not_given_out(
    client, collection, photos, tmp_path, kind
):
    path, secret = photos / "2.png", painted(tmp_path / "secret.png", "black")
    number, before = id_of(collection, path), path.stat()
    if kind == "other content":
        path.write_bytes(b"x" * before.st_size)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    else:
        path.unlink()
        path.symlink_to(secret)
    if "same" in kind:
        secret.write_bytes(encoded("black")[: before.st_size].ljust(before.st_size, b"\0"))
        os.utime(secret, ns=(before.st_atime_ns, before.st_mtime_ns))
    refused(client.get(f"/images/{number}"), 409)
    refused(client.get(f"/images/{number}/thumbnail"), 409)
    refused(client.post("/search", json={"like": [number]}), 409)
    path.unlink()
    refused(client.get(f"/images/{number}"), 410)
    os.mkfifo(path)
    refused(client.get(f"/images/{number}"), 410)


def test_rows_that_say_nothing_of_their_file_are_not_given_out(client, collection, photos):
    path = photos / "3.png"
    collection.add([(ImageRow("any", path.as_uri()), path.read_bytes())])
    refused(client.get(f"/images/{id_of(collection, 'any')}"), 409)


def test_a_key_that_is_renamed_keeps_its_image(client, collection, photos):
    path = photos / "4.png"
    number, row = id_of(collection, path), collection.row(str(path))
    content = path.read_bytes()
    collection.update(
        str(path), ImageRow("/etc/passwd", row.uri, row.size, row.modified, row.digest)
    )
    assert client.get(f"/images/{number}").content == content
    collection.update(
        "/etc/passwd",
        ImageRow("/etc/passwd", "file:///etc/passwd", row.size, row.modified, row.digest),
    )
    refused(client.get(f"/images/{number}"), 409)


def test_an_image_that_was_removed_or_replaced_is_gone_under_its_number(client, collection, photos):
    path = photos / "6.png"
    number = id_of(collection, path)
    painted(path, "white")
    collection.add([str(path)])
    assert id_of(collection, path) != number
    refused(client.get(f"/images/{number}"), 404)
    collection.remove([str(path)])
    refused(client.get(f"/images/{id_of(collection, photos / '7.png') + 99}"), 404)


@pytest.mark.parametrize(
    "path",
    [
        "/images/../../etc/passwd",
        "/images/..%2f..%2fetc%2fpasswd",
        "/images/%2e%2e/%2e%2e/etc/passwd",
        "/images//etc/passwd",
        "/images/%2fetc%2fpasswd",
        "/images/1%2f..%2f2",
        "/images/1%00",
        "/images/-1",
        "/images/file:%2f%2f%2fetc%2fpasswd",
        "/images/1/thumbnail/../../../etc/passwd",
    ],
)
def test_a_path_is_no_number(reading, path):
    answer = reading.get(path)
    assert answer.status_code in (404, 422)
    refused(answer, answer.status_code)


def test_a_file_that_is_too_large_is_not_given_out(served, collection, photos):
    client = served(limits={"file": 40})
    refused(client.get(f"/images/{id_of(collection, photos / '1.png')}"), 409)


# -- adding


def test_an_upload_lasts_and_is_one_image_however_often_it_comes(served, place, collection):
    client = served(uploads=place / "uploads")
    content = encoded("orange", "JPEG")
    first = client.post("/images", content=content, headers={"Content-Type": "image/jpeg"})
    assert (first.status_code, first.json()["new"]) == (201, True)
    again = client.post("/images", content=content)
    assert (again.status_code, again.json()) == (200, first.json() | {"new": False})
    assert client.get(first.json()["image"]).content == content
    with Collection.open(place) as other:  # as a process would after this one is killed
        assert len(other) == 9
    assert [path.suffix for path in (place / "uploads").iterdir()] == [".jpg"]


@pytest.mark.parametrize(
    "content", [b"", b"no picture", encoded("red")[:50], b"<svg/>", b"GIF89a" + b"\xff" * 40]
)
def test_what_is_no_image_is_not_kept(served, place, collection, content):
    client = served(uploads=place / "uploads")
    refused(client.post("/images", content=content), 422)
    assert not (place / "uploads").exists()
    assert len(collection) == 8


def test_files_are_added_from_allowed_directories_only(served, collection, tmp_path, photos):
    allowed = tmp_path / "allowed"
    inside = painted(allowed / "a.png", "pink")
    outside = painted(tmp_path / "allowed too" / "b.png", "black")
    (allowed / "link.png").symlink_to(outside)
    (allowed / "folder").symlink_to(outside.parent)
    (allowed / "text.png").write_text("no picture")
    client = served(paths=(allowed,))

    def add(path):
        return client.post("/paths", json={"path": str(path)})

    for path in (
        outside,
        allowed / "link.png",
        allowed / "folder" / "b.png",
        f"{allowed}/../{outside.parent.name}/b.png",
        "/etc/passwd",
        "/nowhere",
    ):
        assert "no directory that is allowed" in refused(add(path), 403)
    for path in ("a.png", f"{inside}\0", f"{allowed}", allowed / "nothing", allowed / "text.png"):
        refused(add(path), 422)
    assert add(inside).status_code == 201
    assert add(inside).status_code == 200
    assert len(collection) == 9
    answer = served().post("/paths", json={"path": str(inside)})
    assert "--allow-paths" in refused(answer, 403)


# -- strangers and floods


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "192.168.0.1", ""])
def test_another_name_is_not_answered(reading, host):
    refused(reading.get("/status", headers={"Host": host}), 421)


@pytest.mark.parametrize("host", ["localhost", "localhost:7860", "127.0.0.1:80", "[::1]:7860"])
def test_names_of_this_machine_are_answered(reading, host):
    assert reading.get("/status", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}],
)
def test_pages_of_other_origins_are_not_answered(reading, headers):
    refused(reading.post("/search", json={"text": "disc"}, headers=headers), 403)
    answer = reading.get("/status", headers={"Origin": "http://localhost"})
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_a_token_is_needed_where_there_is_one(served):
    client = served(base_url="http://photos.example", token="correct horse battery", loopback=False)
    for given in ("", "Bearer", "Bearer wrong", "Basic correct horse battery", "Bearer \xe9"):
        answer = client.get("/status", headers={"Authorization": given.encode("latin-1")})
        assert "token" in refused(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"
    headers = {"Authorization": "Bearer correct horse battery"}
    assert client.get("/status", headers=headers).status_code == 200
    assert client.get("/openapi.json", headers=headers).json()["security"][0] == {"token": []}
    refused(client.get("/openapi.json"), 401)


def test_a_long_body_is_refused_before_it_is_read(served):
    client = served(limits={"body": 1000})
    sent = []

    def endless():
        for _ in range(1000):
            sent.append(1)
            yield b"x" * 500

    refused(client.post("/images", content=b"x" * 1001), 413)
    refused(client.post("/images", content=endless()), 413)
    assert asked(client, text="disc")["hits"]


def test_too_many_pixels_are_refused(served, place):
    client = served(limits={"pixels": 400}, uploads=place / "uploads")
    content = encoded("red", size=(30, 20))
    assert "600 pixels" in refused(client.post("/images", content=content), 422)
    request = {"image": base64.b64encode(content).decode()}
    assert "600 pixels" in refused(client.post("/search", json=request), 422)


def test_requests_beyond_those_at_once_are_told_to_come_again(served, collection, monkeypatch):
    client = served(limits={"at_once": 2})
    go, begun, search = threading.Event(), threading.Semaphore(0), collection.search_embeddings

    def slow(*arguments):
        begun.release()
        assert go.wait(10)
        return search(*arguments)

    monkeypatch.setattr(collection, "search_embeddings", slow)
    with ThreadPoolExecutor(2) as threads:
        jobs = [threads.submit(asked, client, text="disc") for _ in range(2)]
        assert begun.acquire(timeout=10)
        assert begun.acquire(timeout=10)
        answer = client.get("/status")
        refused(answer, 503)
        assert answer.headers["retry-after"] == "1"
        go.set()
        assert all(job.result()["hits"] for job in jobs)
    assert client.get("/status").json()["requests"] == 1


def test_a_search_that_takes_too_long_is_given_up_and_holds_its_slot(
    served, collection, monkeypatch
):
    client = served(limits={"at_once": 1, "seconds": 0.2})
    go, search = threading.Event(), collection.search_embeddings
    with monkeypatch.context() as patch:
        patch.setattr(
            collection, "search_embeddings", lambda *given: go.wait(10) and search(*given)
        )
        answer = client.post("/search", json={"text": "disc"})
        assert "longer than 0.2 s" in refused(answer, 503)
        refused(client.get("/status"), 503)
        go.set()
    while client.get("/status").status_code == 503:
        pass


def test_a_collection_that_cannot_be_written_is_searched_all_the_same(
    served, place, collection, monkeypatch
):
    from cascade import CollectionError

    client = served(uploads=place / "uploads")

    def full(*_):
        raise CollectionError("the disk is full")

    monkeypatch.setattr(collection, "add", full)
    assert refused(client.post("/images", content=encoded("red")), 503) == "the disk is full"
    assert asked(client, text="disc")["hits"]


# -- status and description


def test_status_says_how_far_each_stage_is(client, collection):
    asked(client, text="disc", k=3)
    collection.flush()
    found = client.get("/status").json()
    assert (found["images"], found["m"], found["refining"]) == (8, [3], None)
    assert [(stage["encoded"], stage["share"]) for stage in found["stages"]] == [
        (8, 1.0),
        (3, 3 / 8),
    ]


def test_the_last_stage_encodes_in_the_background(served, collection):
    from cascade import Budget

    with served(refine=Budget(share=0.5)) as client:
        while (found := client.get("/status").json())["refining"]["state"] != "done":
            assert found["refining"]["state"] == "working"
    assert found["refining"]["encoded"] == 4
    assert collection.status().encoded == (8, 4)


def test_the_page_that_describes_the_api_loads_nothing(client):
    answer = client.get("/docs")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert "POST /search" in answer.text
    assert '<a href="#SearchRequest">' in answer.text
    for link in re.findall('href="#(.*?)"', answer.text):
        assert f'id="{link}"' in answer.text
    for mark in ("http:", "https:", "<script", "@import", "url("):
        assert mark not in answer.text
    assert client.get("/openapi.json").json()["info"]["title"] == "clip-cascade"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the client, not of the API
def test_whatever_the_description_allows_or_not_is_answered_as_it_says(served, place, tmp_path):
    """Requests made from the OpenAPI description, good and bad ones."""
    schemathesis = pytest.importorskip("schemathesis")
    from hypothesis import HealthCheck, given, settings

    client = served(uploads=place / "uploads", paths=(tmp_path,))
    schema = schemathesis.openapi.from_dict(client.get("/openapi.json").json())
    modes = [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]
    for operation in (result.ok() for result in schema.get_all_operations()):
        sent = operation.definition.raw.get("requestBody", {}).get("content", {})
        for mode in modes if "application/json" in sent else modes[:1]:  # else nothing is wrong

            @given(case=operation.as_strategy(generation_mode=mode))
            @settings(
                max_examples=examples(2, 100),
                deadline=None,
                database=None,
                derandomize=not THOROUGH,
                suppress_health_check=list(HealthCheck),
            )
            def check(case):
                answer = client.request(**case.as_transport_kwargs(base_url=HOME))
                assert answer.status_code < 500 or answer.status_code == 503
                if answer.status_code >= 400:
                    assert list(answer.json()) == ["error"]
                assert str(answer.status_code) in case.operation.definition.raw["responses"]

            check()


def test_what_is_not_installed_is_said_with_its_line(monkeypatch):
    import importlib
    import sys

    from commands.errors import UsageError

    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "cascade.serve", raising=False)
    with pytest.raises(UsageError, match=r"needs uvicorn: pip install 'clip-cascade\[search\]'"):
        importlib.import_module("cascade.serve")
