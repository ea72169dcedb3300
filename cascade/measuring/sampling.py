"""What a sample of a collection's images says about all of them.

The full tower's embeddings of all images aren't there: that is the point of a cascade. The first
stage's are. So of a sampled image everything is known that a cascade over all N images does with
it: its rank among all N. What isn't known is which images the full tower ranks first among all N.

A sample of S images has about j = k·S/N of a query's k best. Its j best are therefore looked for
among the first stage's first m of all N. Those j are, on average over samples, deeper in the full
tower's ranking than the k best are: the one at rank r is among them with a probability that falls
with r, and is at most S/N ≤ j/k. So the share of them that is missed is, on average over samples,
no smaller than that of the k best, if the full tower's better results aren't missed more often than
its worse ones; and whatever the images are, that of the k best is at most `loss_factor` times as
large. A sample of all images has j = k, and says it exactly.

No sample can certify more than an average: an image that is the best result of every query and that
the first stage never hands on isn't noticed unless it is drawn.
"""

import hashlib
from collections.abc import Sequence

from scipy import stats
from torch import Tensor

from cascade.searching.catalogue import Contents


def results_of_sample(k: int, sampled: int, images: int) -> int:
    """How many of a sample's best stand for the k best of all: ⌈k·sampled/images⌉.

    Raises:
        ValueError: not 1 ≤ sampled ≤ images, or k isn't in [1, images].
    """
    _check(k, sampled, images)
    return -(-k * sampled // images)


def loss_factor(k: int, sampled: int, images: int) -> float:
    """How many times as large the share missed of the k best can be, on average over samples.

    The image at rank r of all is among the j best of a random sample with the probability
    sampled/images · P(fewer than j of the r - 1 before it are in the sample too), which is smallest
    at r = k. So E[missed of j] ≥ missed of k · that probability / j, summed over ranks to k.

    Raises:
        ValueError: as of `results_of_sample`.
    """
    wanted = results_of_sample(k, sampled, images)
    if sampled == images:
        return 1.0
    fewer = stats.hypergeom.cdf(wanted - 1, images - 1, k - 1, sampled - 1)
    return float(images * wanted / (k * sampled * fewer))


def drawn(keys: Sequence[str], number: int, seed: int) -> list[int]:
    """A random sample of images without replacement: their places, ascending.

    The order that it begins is that of hashes of the keys. So a larger sample holds a smaller one
    of the same seed, and what is added to a collection changes little of it.
    """
    salt = seed.to_bytes(8, "big")

    def order(place: int) -> bytes:
        key = keys[place].encode("utf-8", "surrogateescape")
        return hashlib.blake2b(key, digest_size=16, salt=salt).digest()

    return sorted(sorted(range(len(keys)), key=order)[:number])


def sampled_positions(contents: Contents, number: int, seed: int) -> Tensor:
    """The positions of images that are `drawn` from all that can be found: int64, ascending."""
    keys = list(contents.keys.first(contents.rows.count))
    there = contents.there
    return there[drawn([str(keys[at]) for at in there.tolist()], number, seed)]


def _check(k: int, sampled: int, images: int) -> None:
    if not (1 <= sampled <= images and 1 <= k <= images):
        raise ValueError(
            f"{sampled} images sampled of {images} and {k} results: both are at least 1 and at "
            "most all"
        )
