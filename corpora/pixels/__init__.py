"""From images to what a tower takes: open, prepare, hold few full pictures at once.

The one home of "image processor + images → pixel values", for stages and for calibration. Ordinary
images come out bit for bit as the processor alone makes them. What differs, so that the input
doesn't decide the cost:

- A file whose shorter edge has at least twice max(`ENOUGH` x the processor's size, `WHOLE`) pixels
  is decoded at 1/2, 1/4, … of its size; below 1,440 pixels, so of up to 2 megapixels, never. (So
  for a tower that reads in full; for others `corpora.decoding.reads` says what they read.) Of
  photographs enlarged to 24 megapixels the embeddings of a 12-layer CLIP kept a cosine of 0.99996
  and more to those of the full decoding, at 128 and at 224 pixels, in a seventh of the time.
- Of a picture longer than `LONG` times its width (or wider), the processor gets the middle part
  that holds what its own centre crop keeps, or, if it squeezes the whole into a square, a picture
  whose long edge is averaged down first. Enlarged as a whole, a picture of 1 x 20,000 pixels would
  have 10⁹.

`proportions` reads from a processor how large a picture it needs; `steps` are its own steps without
what it does around them, by torch (`torch_steps`) or Pillow, on a picture's `memory`; `preparer` is
what is called; `ahead` prepares in threads before it is asked; `on_device` decodes and resizes on a
GPU what was begun on the CPU and is `waiting`.
"""

from corpora.decoding.reads import ENOUGH, WHOLE
from corpora.pixels.preparer import Opener, Preparer, Preparing, edge_taken, pixel_values
from corpora.pixels.proportions import LONG

__all__ = [
    "ENOUGH",
    "LONG",
    "WHOLE",
    "Opener",
    "Preparer",
    "Preparing",
    "edge_taken",
    "pixel_values",
]
