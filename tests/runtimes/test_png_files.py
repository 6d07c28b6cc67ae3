"""PNG files written while their pixels arrive are those that other readers read."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from runtimes.png_files import GREY, RGB, PngWriter, png_of


@given(
    st.integers(1, 9), st.integers(1, 9), st.sampled_from([GREY, RGB]), st.integers(1, 40), st.integers(0, 2**32 - 1)
)
def test_pieces_of_any_size_make_the_same_image(height: int, width: int, kind: int, step: int, seed: int) -> None:
    channels = 1 if kind == GREY else 3
    image = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    values = memoryview(image.tobytes())
    writer = PngWriter(height, width, kind)
    for start in range(0, len(values), step):
        writer.write(values[start : start + step])

    read = np.asarray(Image.open(io.BytesIO(writer.end())))
    assert np.array_equal(read.reshape(image.shape), image)


def test_an_image_without_colour_becomes_a_grey_file() -> None:
    grey = np.repeat(np.arange(12, dtype=np.uint8).reshape(3, 4, 1), 3, axis=2)
    coloured = grey.copy()
    coloured[0, 0, 0] = 255
    assert Image.open(io.BytesIO(png_of(grey))).mode == "L"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png_of(coloured)))), coloured)


def test_other_than_its_values_is_no_image() -> None:
    writer = PngWriter(2, 2)
    writer.write(memoryview(bytes(11)))
    with pytest.raises(ValueError, match="fewer values"):
        writer.end()
    with pytest.raises(ValueError, match="more values"):
        writer.write(memoryview(bytes(2)))
