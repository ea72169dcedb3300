"""Encoders that know their answers: image i is row i of a table, text "j" asks for image j."""

import shutil

import torch

from cascade import Cascade, Collection, UnreadableImage
from cascade.collecting.rounding import rounded
from cascade.storing.rows import ImageRow


class Known:
    """An encoder with a table of random directions."""

    def __init__(self, seed, images=400, dimension=16, unreadable=()):
        generator = torch.Generator().manual_seed(seed)
        table = torch.randn(images, dimension, generator=generator)
        self.table = torch.nn.functional.normalize(table, dim=1)
        self.name = self.text_name = f"known {seed}"
        self.unreadable = set(unreadable)
        self.asked = []

    def encode_images(self, images):
        numbers = [image() if callable(image) else image for image in images]
        if self.unreadable & set(numbers):
            raise UnreadableImage("it is broken")
        self.asked += numbers
        return self.table[numbers]

    def encode_texts(self, texts):
        return self.table[[int(text) for text in texts]]


def number_of(row):
    """An opener: the `uri` of an image is its number."""
    return int(row.uri)


def numbered(numbers, **fields):
    return [ImageRow(f"image {number}", str(number), **fields) for number in numbers]


def of_rows(stages, m, rows, precision="float16"):
    """A cascade in memory over the images of a collection's rows, in their order."""
    cascade = Cascade(rounded(stages, precision), m)
    there = [row for row in rows if row.reason is None]
    cascade.index([number_of(row) for row in there], keys=[row.key for row in there])
    return cascade


def on_disk(path, stages, m=None, **settings):
    shutil.rmtree(path, ignore_errors=True)
    return Collection.create(path, stages, m, opener=number_of, **settings)
