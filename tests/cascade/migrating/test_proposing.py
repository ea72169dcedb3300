"""What is said of a migration before it is done is what comes of it."""

import json
import sys

import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

from cascade import Cascade, Collection, Stage
from cascade.collecting.record import Record
from cascade.migrate import MigrateOptions, main
from cascade.migrating.mapping import KINDS
from cascade.migrating.proposing import Terms, proposed
from cascade.stages.mapped import MappedStage
from cascade.storing.errors import CollectionError
from commands.errors import UsageError
from pruning_mechanism import TowerError, save
from tests.cascade.known import Known, number_of, numbered
from tests.conftest import WORDS, tiny_clip, tiny_processor

IMAGES, K = 300, 4


class Related(Known):
    """A new tower whose embeddings are nearly linear in another's."""

    def __init__(self, first, noise, unreadable=()):
        super().__init__(7, IMAGES, 12, unreadable)
        weight = torch.randn(16, 12, generator=torch.Generator().manual_seed(8))
        self.table = normalize(normalize(first.table @ weight, dim=1) + noise * self.table, dim=1)


@pytest.fixture(scope="module")
def first():
    return Known(0, IMAGES)


@pytest.fixture(scope="module")
def collection(first):
    made = Collection.in_memory([first, Known(1, IMAGES)], [20], opener=number_of)
    made.add(numbered(range(IMAGES)))
    made.remove(["image 7", "image 90"])
    return made


def of_cascade(stages, m, gone=("image 7", "image 90")):
    made = Cascade(stages, m)
    numbers = [number for number in range(IMAGES) if f"image {number}" not in gone]
    made.index([lambda at=at: at for at in numbers], keys=numbers)
    return made


def agreement(stages, m, queries):
    """Of a cascade with its last stage alone, over all images."""
    found = of_cascade(stages, m).search_many(queries, K)
    wanted = of_cascade(stages[-1:], []).search_many(queries, K)
    shared = [
        len({hit.key for hit in here} & {hit.key for hit in there}) / K
        for here, there in zip(found, wanted, strict=True)
    ]
    return sum(shared) / len(shared)


@pytest.mark.parametrize("noise", [0.0, 0.8])
def test_what_is_estimated_is_what_a_cascade_then_returns(collection, first, noise):
    last = Related(first, noise)
    queries = [str(query) for query in range(IMAGES)]
    proposal = proposed(collection, last, Terms(k=K, queries=queries))
    assert len(proposal.sample) == len(collection)
    stages = [MappedStage(first, proposal.map, last), last]
    for m in (K, 30):
        assert proposal.measured.sample_agreement(m) == proposal.measured.agreement(m)
        # by the map of all images it is a little better
        assert proposal.measured.agreement(m) == pytest.approx(
            agreement(stages, [m], queries), abs=0.06
        )
    if not noise:
        assert proposal.measured.agreement(K) > 0.8


def test_agreement_is_by_maps_that_have_not_seen_the_images(collection, first):
    """Beside the definition: ranks in float64, of the best of the sample."""
    last = Related(first, 0.8)
    queries = [str(query) for query in range(40)]
    proposal = proposed(collection, last, Terms(images=200, k=K, queries=queries, seed=3))
    sample, new = proposal.sample, proposal.sample.embeddings.half().float()
    contents = collection.cascade.catalogue.contents
    mapped = proposal.map(contents.rows.embeddings)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(3))
    for fold in range(4):
        own, rest = order[fold::4], [at for at in order.tolist() if at not in order[fold::4]]
        solved = KINDS[proposal.kind](sample.old[rest], new[rest])
        mapped[sample.positions[own]] = solved(sample.old[own])
    mapped, asked = mapped.half().double(), last.encode_texts(queries).double()
    scores = asked @ mapped.T
    scores[:, list(contents.gone)] = -9
    wanted = (asked @ new.double().T).topk(K).indices
    places = sample.positions[wanted[:, :3]]  # ⌈4 · 200 / 298⌉ of them
    ranks = (scores[:, None] > scores.gather(1, places)[..., None]).sum(2) + 1
    of_sample = scores[:, sample.positions]
    alone = (of_sample[:, None] > of_sample.gather(1, wanted)[..., None]).sum(2) + 1
    measured = proposal.measured
    for m in (K, 20, 100):
        assert measured.agreement(m) == pytest.approx((ranks <= m).double().mean().item())
        assert measured.sample_agreement(m) == pytest.approx((alone <= m).double().mean().item())
        assert measured.brought_up(m) == len(scores.topk(m).indices.unique())
    enough = measured.smallest_m(0.7, K)
    assert measured.agreement(enough) >= 0.7 > measured.agreement(enough - 1)
    assert measured.smallest_m(1.1, K) is None


def test_images_stand_for_texts_where_there_are_none_and_unreadable_ones_are_counted(
    collection, first
):
    broken = {1, 2, 3}
    last = Related(first, 0.0, broken)
    before = collection.status()
    proposal = proposed(collection, last, Terms(k=K, drawn=20))
    assert proposal.sample.unreadable == len(broken)
    assert proposal.measured.queries == "20 images in place of texts"
    assert proposal.measured.agreement(K) > 0.8
    assert collection.status() == before
    keys = [collection.row_of(number).key for number in proposal.sample.ids.tolist()]
    numbers = [int(key.split()[1]) for key in keys]
    assert torch.equal(proposal.sample.embeddings, last.table[numbers])


def test_captions_of_the_collection_are_asked_if_it_has_some(first):
    made = Collection.in_memory([first], opener=number_of)
    made.add(numbered(range(80), metadata=json.dumps({"captions": ["5", "6"]})))
    measured = proposed(made, Related(first, 0.0), Terms(k=K, drawn=10)).measured
    assert measured.queries == "10 captions of the collection"


def test_too_few_images_are_refused_before_any_is_encoded(first):
    made = Collection.in_memory([first], opener=number_of)
    made.add(numbered(range(50)))
    last = Related(first, 0.0)
    with pytest.raises(ValueError, match=r"holds 50 images: .* takes 64"):
        proposed(made, last)
    assert not last.asked


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A collection of two tiny CLIPs, and a third with other texts."""
    root = tmp_path_factory.mktemp("photos")
    for name, seed in (("old", 0), ("new", 5)):
        torch.manual_seed(seed)
        save(tiny_clip(seed=seed), root / name, tiny_processor())
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (66, 20, 24, 3), generator=generator, dtype=torch.uint8)
    for number, each in enumerate(noise):
        Image.fromarray(each.numpy()).save(root / f"{number}.png")
    old = Stage.load(root / "old")
    with Collection.create(root / "photos.cascade", [old, old], [12]) as made:
        made.add(sorted(root.glob("*.png"))[:-1])
    return root


def test_the_command_measures_and_changes_nothing_until_it_is_enough(photos, capsys):
    path = photos / "photos.cascade"
    queries = photos / "queries.txt"
    queries.write_text("\n".join(" ".join(WORDS[at : at + 3]) for at in range(9)))
    before = Record.read(path)

    def migrate(**options):
        main(
            MigrateOptions(
                collection=path, last=str(photos / "new"), k=3, queries=queries, **options
            )
        )
        return " ".join(capsys.readouterr().out.split())

    said = migrate()
    assert "is as it was: --at-least" in said
    assert "agreement@3" in said
    assert "9 given queries" in said
    with pytest.raises(UsageError, match=r"is as it was: with m = 3 .* asks for 100"):
        migrate(at_least=1.0, m=3)
    assert Record.read(path) == before
    assert "wrote" in migrate(at_least=0.0)
    with Collection.open(path) as now:
        assert now.m == (12,)
        assert now.status().encoded == (65, 65)
        now.add(sorted(photos.glob("*.png")))
        assert len(now) == 66
        hits = now.search(WORDS[2], 3)
        first, file = now.stages[0], photos / "65.png"
        ahead = first.stage.prepare(file)  # as indexing does, in other threads
        assert torch.equal(first.encode_images([ahead]), first.encode_images([file]))
    new = Stage.load(photos / "new")
    scores = (new.encode_texts([WORDS[2]]) @ new.encode_images([hits[0].key]).T).item()
    assert hits[0].score == pytest.approx(scores, abs=1e-3)
    with pytest.raises(UsageError, match=r"is the last stage of .* already"):
        migrate()


@pytest.mark.parametrize("flag", ["first", "last"])
def test_the_command_loads_new_stages_in_the_runtime_that_is_named(photos, flag, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    named = {flag: str(photos / "new"), "runtime": "onnxruntime"}
    with pytest.raises((TowerError, CollectionError), match="onnxruntime: pip install"):
        main(MigrateOptions(collection=photos / "photos.cascade", k=3, **named))
