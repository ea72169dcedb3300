"""Words, and pairs of nearby words, as classes that demo.train recognises from the image alone.

Classifying an image by the words of its captions is a dense signal beside the contrastive one
(Huang et al. 2024, arXiv 2411.03313); pairs also say which colour belongs to which shape. Only
training needs it: the classifier is no part of the checkpoint.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

import torch

REACH = 4  # a pair is two words at most this far apart
COMMON = 0.3  # what a larger share of images is said to show tells them too little apart


class Phrases:
    """Numbered phrases, and which of them a caption says."""

    def __init__(self, names: Sequence[str]):
        self.names = tuple(names)
        self._number = {name: number for number, name in enumerate(self.names)}

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def of(cls, captions_of_images: Sequence[Sequence[str]], count: int) -> "Phrases":
        """The `count` phrases said of most images, leaving out those said of over 30 %."""
        images_that_say: Counter[str] = Counter()
        for captions in captions_of_images:
            images_that_say.update(set(phrases_in(captions)))
        limit = COMMON * len(captions_of_images)
        ranked = sorted(
            (-images, name) for name, images in images_that_say.items() if images <= limit
        )
        return cls([name for _, name in ranked[:count]])

    def said(self, captions: Sequence[str]) -> torch.Tensor:
        """Float [P]: 1 where any of the captions says the phrase, else 0."""
        numbers = {self._number[name] for name in phrases_in(captions) if name in self._number}
        said = torch.zeros(len(self))
        said[sorted(numbers)] = 1
        return said


def phrases_in(captions: Sequence[str]) -> Iterator[str]:
    """Every word of the captions, and every pair of words within reach, in their order."""
    for caption in captions:
        words = caption.lower().replace(",", " ").split()
        for i, word in enumerate(words):
            yield word
            for later in words[i + 1 : i + 1 + REACH]:
                yield f"{word} {later}"
