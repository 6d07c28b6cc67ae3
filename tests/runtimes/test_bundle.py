"""Packed bundles."""

from __future__ import annotations

import io
import os
import tempfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimes.bundle import BadBundle, Bundle, pack

NAMES = st.text("abcdefgh", min_size=1, max_size=8)
FILES = st.dictionaries(NAMES, st.binary(max_size=200), max_size=6)


def packed(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    pack([(path, io.BytesIO(data), len(data)) for path, data in files.items()], out)
    return out.getvalue()


def opened(data: bytes) -> Bundle:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        return Bundle(os.dup(file.fileno()))


@given(FILES)
def test_files_come_back_as_they_were(files: dict[str, bytes]) -> None:
    bundle = opened(packed(files))

    assert {path: bundle.read(path) for path in bundle.paths()} == files


def test_a_file_is_read_at_any_place() -> None:
    with opened(packed({"other": b"xxx", "a/b.bin": b"0123456789"})).open("a/b.bin") as file:
        file.seek(-3, os.SEEK_END)
        assert file.read() == b"789"
        file.seek(2)
        assert file.read(3) == b"234"
        assert not file.writable()


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "", "a//b", "a\0b", "."])
def test_a_path_that_leaves_the_bundle_is_refused(path: str) -> None:
    with pytest.raises(BadBundle):
        packed({path: b""})


def test_a_file_shorter_than_its_size_is_refused() -> None:
    with pytest.raises(BadBundle):
        pack([("a", io.BytesIO(b"12"), 3)], io.BytesIO())


@given(FILES.filter(bool), st.data())
def test_a_damaged_bundle_is_a_named_error_or_still_a_bundle(files: dict[str, bytes], data: st.DataObject) -> None:
    whole = bytearray(packed(files))
    if data.draw(st.booleans()):
        del whole[data.draw(st.integers(0, len(whole) - 1)) :]
    else:
        whole[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))

    try:
        bundle = opened(bytes(whole))
        for path in bundle.paths():
            bundle.read(path)
    except BadBundle:
        pass


@given(st.binary(max_size=200))
def test_any_bytes_are_no_bundle(data: bytes) -> None:
    with pytest.raises(BadBundle):
        opened(data)
