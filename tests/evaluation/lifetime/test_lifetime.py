"""Streams of queries: what they bring up is what a cascade encodes when it is asked."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cascade import Cascade
from evaluation.lifetime.counting import Streams, measured_curve
from evaluation.lifetime.reliability import calibration_error, reliability
from evaluation.lifetime.zipf import brought_up, zipf_stream
from evaluation.reports.stream import Stream
from tests.cascade.calibrated.pair import CALIBRATION, IMAGES, K, stages


@pytest.mark.parametrize("name", ["fixed", "auto"])
def test_a_simulated_stream_encodes_what_a_real_one_does(name):
    cascade = Cascade(stages(), [7], calibration=CALIBRATION)
    cascade.index(range(IMAGES), keys=range(IMAGES))
    texts = [str(number) for number in range(0, IMAGES, 2)]
    stream = zipf_stream(len(texts), 25, 1.0, seed=3)
    streams = Streams([stream], tuple(range(1, 26)))
    curve = measured_curve(cascade, cascade.encode_texts(texts), streams, name, K, None)
    assert cascade.encoded[1] == 0  # nothing was encoded for it
    real = []
    for text in stream:
        query = cascade.encode_texts([texts[text]])
        cascade.search_embeddings(query, K, m="auto" if name == "auto" else None)
        real.append(cascade.encoded[1])
    assert curve.encoded == (tuple(real),)


def test_frequencies_follow_zipf():
    stream = zipf_stream(50, 200_000, 1.0, seed=0)
    counts = np.sort(np.bincount(stream, minlength=50))[::-1]
    expected = 200_000 / np.arange(1, 51) / (1 / np.arange(1, 51)).sum()
    assert counts == pytest.approx(expected, rel=0.1)
    even = np.bincount(zipf_stream(10, 50_000, 0.0, seed=0), minlength=10)
    assert even == pytest.approx(5_000, rel=0.1)
    with pytest.raises(ValueError, match="needs a text"):
        zipf_stream(0, 5, 1.0, 0)


@settings(max_examples=30)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=30), st.integers(0, 1000))
def test_an_image_is_counted_the_first_time(stream, seed):
    generator = np.random.default_rng(seed)
    handed_on = [generator.choice(20, generator.integers(1, 9), replace=False) for _ in range(5)]
    after = list(range(len(stream) + 1))
    expected = [len({at for text in stream[:n] for at in handed_on[text].tolist()}) for n in after]
    assert brought_up(np.array(stream), handed_on, 20, after) == expected


def test_a_reliability_table_is_the_means_of_its_bins():
    bins = reliability([0.05, 0.15, 0.12, 1.0, 0.95], [False, True, False, True, False])
    assert [(each.low, each.hits) for each in bins] == [(0.0, 1), (0.1, 2), (0.9, 2)]
    assert [each.happened for each in bins] == [0, 0.5, 0.5]
    assert bins[1].stated == pytest.approx(0.135)
    expected = (0.05 + 2 * (0.5 - 0.135) + 2 * (0.975 - 0.5)) / 5
    assert calibration_error(bins) == pytest.approx(expected)
    with pytest.raises(ValueError, match="2 probabilities and 1 outcomes"):
        reliability([0.1, 0.2], [True])


KEPT = sorted((Path(__file__).resolve().parents[3] / "docs" / "reports" / "stream").glob("*.json"))


def test_reports_that_were_kept_are_still_read():
    assert [path.stem for path in KEPT] == ["photos", "scenes"]
    for path in KEPT:
        assert [curve.name for curve in Stream.load(path).curves] == ["fixed", "auto"]
