"""A picture enlarged to what a sensor would have given: many pixels, none of them without noise.

An enlarged picture alone is smooth, and its JPEG small and quick to decode; it is the noise that
gives a decoder the work that a photograph gives it.
"""

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.Image import Resampling

_GREY = 128
_READ = 0.3
"""Share of the variance at mid grey that is there in the dark as well."""
_COLOUR = 0.5
"""Noise of the colour channels, as a share of the brightness's."""


def enlarged(
    picture: Image.Image, size: tuple[int, int], noise: float, rng: np.random.Generator
) -> Image.Image:
    """The picture at a size, with noise, as YCbCr.

    Args:
        picture: RGB.
        size: width and height in pixels.
        noise: standard deviation in levels of 255 at mid grey; elsewhere its variance grows with
            the brightness, as that of counted light does.
        rng: draws the noise.
    """
    large = picture.convert("YCbCr").resize(size, Resampling.LANCZOS)
    if not noise:
        return large
    brightness, *colours = large.split()
    variance = _READ + (1 - _READ) * np.arange(256, dtype=np.float32) / _GREY
    noisy = [_noisy(brightness, np.float32(noise) * np.sqrt(variance), rng)]
    # colour is stored at half the resolution: finer noise would only be averaged away
    flat = np.full(256, _COLOUR * noise, dtype=np.float32)
    half = (-(-size[0] // 2), -(-size[1] // 2))
    for colour in colours:
        small = _noisy(colour.resize(half, Resampling.BOX), flat, rng)
        noisy.append(small.resize(size, Resampling.NEAREST))
    return Image.merge("YCbCr", noisy)


def _noisy(
    channel: Image.Image, deviations: npt.NDArray[np.float32], rng: np.random.Generator
) -> Image.Image:
    """A channel with normal noise, given its standard deviation at each level [256]."""
    levels = np.asarray(channel)
    values = rng.standard_normal(levels.shape, dtype=np.float32)
    values *= deviations[levels]
    values += levels
    np.rint(values, out=values)
    return Image.fromarray(np.clip(values, 0, 255, out=values).astype(np.uint8))
