"""A breakdown to write, show and draw; its numbers are made up and describe no measurement."""

from evaluation.measuring.values import Interval, Machine, Timing
from evaluation.reports.breakdown.report import Breakdown, Files, Lifetime, Split, Way


def timing(milliseconds: float) -> Timing:
    return Timing(milliseconds / 1000, 0.9 * milliseconds / 1000, 1.2 * milliseconds / 1000, 5)


def ratio(value: float) -> Interval:
    return Interval(value, 0.8 * value, 1.25 * value)


def way(name, role, steps, whole, threads=1, reads="full", runtime="torch", plain=260.0) -> Way:
    lifetime = None
    if role == "first stage":
        lifetime = Lifetime(
            last="tower", same=ratio(5), encoder=ratio(5.7), plain=ratio(9), plain_encoder=ratio(6)
        )
    return Way(
        name=name,
        role=role,
        checkpoint=name.split()[0],
        reads=reads,
        runtime=runtime,
        dtype="float32",
        threads=threads,
        split=Split(*map(timing, steps)),
        end_to_end=timing(whole),
        nbytes=4e6,
        faster=ratio(plain / whole),
        faster_encoder=ratio(101 / steps[-1]),
        lifetime=lifetime,
    )


def made_up(ways=None) -> Breakdown:
    return Breakdown(
        command="made up",
        files=Files("camera", 200, 4.4e6, 12e6, 180, {"JPEG": 200}),
        batch=16,
        f=0.1,
        ways=ways
        or (
            way("transformers, tower", "plain", (1, 98, 60, 101), 260),
            way("tower", "full tower", (1, 43, 15, 101), 160),
            way("small", "first stage", (1, 43, 15, 7.5), 66.5),
            way("small thumbnail", "first stage", (0.1, 0.5, 0.3, 2.6), 2.9, reads="thumbnail"),
        ),
        skipped=(),
        seed=0,
        machine=Machine("a processor", 2, 1, "cpu", "float32", "Linux"),
        versions={"python": "3.11"},
        date="2026-01-01T00:00:00+00:00",
    )
