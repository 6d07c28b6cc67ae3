"""Zip archives read in place: what honest tools make is read, what is built to harm is refused."""

from __future__ import annotations

import io
import zipfile
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimes.errors import ArtifactRejected
from runtimes.folders import ZipFolder

FILES = st.dictionaries(st.text("abc/", min_size=1, max_size=5).map(lambda name: f"x{name}y"), st.binary(max_size=300))


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for path, data in files.items():
            archive.writestr(path, data)
    return out.getvalue()


def opened(data: bytes) -> ZipFolder:
    return ZipFolder(io.BytesIO(data), len(data))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_files_come_back_as_they_were(method: int) -> None:
    files = {"MLmodel": b"flavors: {}", "data/weights": bytes(range(256)) * 40}
    folder = opened(zipped(files, method))

    assert {path: folder.read(path) for path in folder.paths()} == files
    assert folder.open("data/weights").read() == files["data/weights"]


def test_what_an_operating_system_adds_is_passed_over() -> None:
    assert opened(zipped({"a": b"", "__MACOSX/._a": b"", "b/.DS_Store": b"", "b/": b""})).paths() == ("a",)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "a//b", "a\\..\\b"])
def test_a_name_that_leads_outside_is_refused(name: str) -> None:
    assert refused(zipped({name: b"x"})) == "bad_archive"


def test_a_link_is_refused() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        link = zipfile.ZipInfo("model.pkl")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")

    assert refused(out.getvalue()) == "bad_archive"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_comes_twice_is_refused() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for _ in range(2):
            archive.writestr("a", b"x")

    assert refused(out.getvalue()) == "bad_archive"


def test_a_bomb_is_refused_before_it_is_read() -> None:
    assert refused(zipped({str(place): bytes(40 << 20) for place in range(2)})) == "bad_archive"


def test_an_encrypted_archive_is_refused() -> None:
    data = bytearray(zipped({"a": b"x"}))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1

    assert refused(bytes(data)) == "bad_archive"


@given(FILES, st.data())
def test_a_damaged_archive_ends_in_a_named_error(files: dict[str, bytes], chosen: Any) -> None:
    data = bytearray(zipped(files))
    if chosen.draw(st.booleans()):
        del data[chosen.draw(st.integers(0, len(data))) :]
    else:
        data[chosen.draw(st.integers(0, len(data) - 1))] ^= chosen.draw(st.integers(1, 255))
    with suppress(ArtifactRejected):  # any other exception fails the test
        folder = opened(bytes(data))
        for path in folder.paths():
            folder.read(path)


def refused(data: bytes) -> str:
    with pytest.raises(ArtifactRejected) as rejected:
        opened(data)
    return rejected.value.code
