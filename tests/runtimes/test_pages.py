"""Documents page by page in confined runners: honest ones come out right, hostile ones as a named fault or bounded."""

from __future__ import annotations

import io
import os
import signal
import socket
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from runtimes import page_work
from runtimes.client import HostClient
from runtimes.detection import Detection
from runtimes.errors import DeadlineExceeded, ModelError, ProtocolFault, RunnerDied, RuntimeFault
from runtimes.limits import MIB, Limits
from runtimes.messages import Frame
from runtimes.page_limits import MAX_PAGES, MAX_PIXELS
from runtimes.page_work import Document, PageImage, PageSize, media_type_of
from runtimes.png_files import png_of
from tests.runtimes import documents, hosts
from tests.runtimes.documents import stored

PDF = "application/pdf"
LITTLE = Limits(memory_bytes=512 * MIB, call_seconds=20, fit_seconds=60, cpu_seconds=60)


def read(client: HostClient, data: bytes, index: int = 0, dpi: float = 72, limits: Limits = LITTLE) -> PageImage:
    with stored(data) as fd, client.open_document(document_fd=fd, media_type=kind_of(data), limits=limits) as document:
        return document.render(index, dpi)


def kind_of(data: bytes) -> str:
    found = media_type_of(data[:1024])
    assert found is not None
    return found


def fault(client: HostClient, data: bytes, **options: Any) -> RuntimeFault:
    with pytest.raises(RuntimeFault) as refused:
        read(client, data, **options)
    assert read(client, documents.pdf(1)).rgb.shape == (842, 595, 3), "the host serves others"
    return refused.value


def test_a_pdf_of_reportlab_comes_out_where_it_was_drawn(client: HostClient) -> None:
    data = documents.pdf(3)
    with stored(data) as fd, client.open_document(document_fd=fd, media_type=PDF) as document:
        assert document.pages == (PageSize(595, 842),) * 3
        page, again = document.render(2, dpi=144), document.render(0, dpi=72)

    assert page.rgb.shape == (1684, 1190, 3)
    assert again.rgb.shape == (842, 595, 3)
    dark = np.argwhere(page.rgb[:500, :, 0] < 128)
    assert dark.min(axis=0) == pytest.approx([200, 200], abs=2)
    assert dark.max(axis=0) == pytest.approx([300, 300], abs=2)
    assert (np.asarray(Image.open(io.BytesIO(page.png)).convert("RGB")) == page.rgb).all()


@pytest.mark.skipif(not documents.CHROMIUM.exists(), reason="Debian's Chromium is not installed")
def test_a_pdf_that_chromium_printed_has_its_pages(client: HostClient) -> None:
    data = documents.printed_pdf(4)
    with stored(data) as fd, client.open_document(document_fd=fd, media_type=PDF) as document:
        assert [round(size.height_pt) for size in document.pages] == [842] * 4
        inked = [(document.render(index).rgb < 100).mean() for index in range(4)]
    assert all(0.001 < part < 0.2 for part in inked)


@pytest.mark.parametrize("name", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_an_image_is_a_document_of_one_page(client: HostClient, name: str) -> None:
    page = read(client, documents.image(name))

    assert page.rgb.shape == (40, 60, 3)
    assert page.rgb[:15, :25].max() < 40
    assert page.rgb[25:].min() > 215
    assert (page.width_pt, page.height_pt) == (60, 40)


def test_an_image_that_says_its_resolution_is_made_no_larger_than_asked(client: HostClient) -> None:
    page = read(client, documents.image("PNG", (600, 400), dpi=(300, 300)), dpi=150)
    assert page.rgb.shape == (200, 300, 3)
    assert [page.width_pt, page.height_pt] == pytest.approx([144, 96], abs=0.1)


def test_the_images_of_a_tiff_are_pages(client: HostClient) -> None:
    data = documents.tiff((30, 20), (50, 60), (7, 9))
    with stored(data) as fd, client.open_document(document_fd=fd, media_type="image/tiff") as document:
        assert [(size.width_pt, size.height_pt) for size in document.pages] == [(30, 20), (50, 60), (7, 9)]
        assert [document.render(index).rgb.shape for index in (2, 0, 1)] == [(9, 7, 3), (20, 30, 3), (60, 50, 3)]


def test_a_photo_lies_the_right_way_up(client: HostClient) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    page = read(client, documents.image("JPEG", exif=exif.tobytes()))

    assert page.rgb.shape == (60, 40, 3)
    assert (page.width_pt, page.height_pt) == (40, 60)
    assert page.rgb[:25, 25:].max() < 60, "what was the upper left is the upper right"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "F"])
def test_every_kind_of_pixel_becomes_red_green_and_blue(client: HostClient, mode: str) -> None:
    made = Image.new("L", (8, 8), 0).convert(mode) if mode not in ("I;16", "F") else Image.new(mode, (8, 8), 0)
    out = io.BytesIO()
    made.save(out, "TIFF" if mode in ("CMYK", "F", "I;16") else "PNG")
    assert (read(client, out.getvalue()).rgb == 0).all()


def test_what_is_transparent_is_white(client: HostClient) -> None:
    out = io.BytesIO()
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(out, "PNG")
    assert (read(client, out.getvalue()).rgb == 255).all()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (documents.encrypted_pdf(), "encrypted_document"),
        (documents.pdf()[:400], "unreadable_document"),
        (b"%PDF-1.7\nnothing", "unreadable_document"),
        (documents.plain_pdf(), "empty_document"),
        (documents.png_bomb(30_000), "page_too_large"),
        (documents.image("PNG", (300, 300))[:200], "unreadable_document"),
        (documents.image("JPEG", (300, 300))[:500], "unreadable_document"),
        (documents.image("WEBP")[:40], "unreadable_document"),
        (documents.tiff((30, 20), (50, 60))[:100], "unreadable_document"),
        (b"\x89PNG\r\n\x1a\n" + documents.pdf(), "unreadable_document"),
        (b"II*\0" + b"\xff" * 60, "unreadable_document"),
    ],
    ids=[
        "encrypted", "cut PDF", "no PDF", "no pages", "bomb", "cut PNG", "cut JPEG", "cut WebP", "cut TIFF",
        "PDF that begins as PNG", "TIFF of nonsense",
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_a_named_fault(client: HostClient, data: bytes, code: str) -> None:
    told = fault(client, data)
    assert isinstance(told, ModelError)
    assert told.code == code
    assert told.message.endswith(".")


def test_a_document_of_too_many_pages_is_refused(client: HostClient) -> None:
    kids = "3 0 R " * 5_000
    data = documents.plain_pdf("<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] >>", count=5_000, kids=kids)
    told = fault(client, data)
    assert told.code == "too_many_pages"
    assert f"{MAX_PAGES:,}" in told.message


@pytest.mark.parametrize(
    "box",
    ["0 0 200000 200000", "0 0 1e9 1", "0 0 999999999999 999999999999", "0 0 0 0", "5 5 1 1", "0 0 0.0001 7"],
)
def test_an_absurd_page_is_rendered_within_bounds(client: HostClient, box: str) -> None:
    page = f"<< /Type /Page /Parent 2 0 R /MediaBox [{box}] >>"
    rgb = read(client, documents.plain_pdf(page, count=1, kids="3 0 R"), dpi=600).rgb
    assert 0 < rgb.shape[0] * rgb.shape[1] <= MAX_PIXELS


def test_a_large_image_is_made_smaller(client: HostClient) -> None:
    rgb = read(client, documents.png_bomb(7_000), limits=Limits(call_seconds=30)).rgb
    assert rgb.shape[0] * rgb.shape[1] <= MAX_PIXELS
    assert rgb.shape[0] == rgb.shape[1] > 4_900


def test_a_stream_that_unpacks_without_end_is_bounded(client: HostClient) -> None:
    packed = zlib.compress(b"0 0 m 9 9 l S\n" * 20_000_000, 9)
    content = f"<< /Length {len(packed)} /Filter /FlateDecode >>\nstream\n{packed.decode('latin-1')}\nendstream"
    page = "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 90 90] /Contents 4 0 R >>"
    data = documents.plain_pdf(page, content, count=1, kids="3 0 R").replace(
        content.encode(), content.encode("latin-1")
    )
    short = Limits(memory_bytes=400 * MIB, call_seconds=5, fit_seconds=10, cpu_seconds=6)
    with suppress(ModelError, DeadlineExceeded, RunnerDied):
        assert read(client, data, limits=short).rgb.shape[2] == 3
    assert read(client, documents.pdf(1)).rgb.shape == (842, 595, 3)


def test_a_page_that_fails_leaves_the_others(client: HostClient) -> None:
    data = documents.tiff((30, 20), (50, 60))
    broken: Any = Image.open(io.BytesIO(data))
    place = data.index(broken.tag_v2.get(273)[0].to_bytes(4, "little"))  # where the first image's pixels lie
    cut = data[:place] + (0x7FFFFFFF).to_bytes(4, "little") + data[place + 4 :]
    with stored(cut) as fd, client.open_document(document_fd=fd, media_type="image/tiff") as document:
        with pytest.raises(ModelError) as refused:
            document.render(0)
        assert document.render(1).rgb.shape == (60, 50, 3)
    assert refused.value.code == "unreadable_document"


def test_a_runner_that_dies_is_told_and_the_document_opens_again(client: HostClient) -> None:
    with stored(documents.pdf(2)) as fd:
        with client.open_document(document_fd=fd, media_type=PDF, limits=LITTLE) as document:
            document.render(0)
            os.kill(_newest_runner(client), signal.SIGKILL)
            with pytest.raises(RuntimeFault) as died:
                document.render(1)
        with client.open_document(document_fd=fd, media_type=PDF) as document:
            assert document.render(1).rgb.shape[2] == 3
    assert died.value.is_retryable


def _newest_runner(client: HostClient) -> int:
    """The youngest child of the client's host."""
    with client.converse() as host, socket.socket(fileno=os.dup(host.fileno())) as connection:
        told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, _, _ = struct.unpack("3i", told)
    return max(psutil.Process(pid).children(), key=lambda child: child.create_time()).pid  # numbers start anew


def test_a_runner_ends_with_the_block(client: HostClient) -> None:
    with stored(documents.pdf(1)) as fd, client.open_document(document_fd=fd, media_type=PDF) as document:
        document.render(0)
        pid = _newest_runner(client)
    assert hosts.eventually(lambda: not hosts.is_alive(pid))


def test_memory_stays_flat_over_many_pages(client: HostClient) -> None:
    with stored(documents.pdf(120)) as fd, client.open_document(document_fd=fd, media_type=PDF) as document:
        document.render(0)
        pid, used = _newest_runner(client), []
        for index in range(120):
            document.render(index, dpi=100)
            used.append(_resident_bytes(pid))
    assert used[-1] - used[20] < 8 * MIB


def _resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def test_boxes_are_drawn_and_cut_out(client: HostClient) -> None:
    png = png_of(np.full((200, 300, 3), 255, np.uint8))
    outline = ((50.0, 60.0), (150.0, 60.0), (150.0, 120.0))
    boxes = [
        Detection("table", 0.91, (50, 60, 150, 120), outline),
        Detection('<script>"\x00\u202e' * 30, 0.5, (-5e8, -3, 5e8, 9)),
    ]

    drawn = np.asarray(Image.open(io.BytesIO(client.draw(png, boxes))).convert("RGB"))
    cut = Image.open(io.BytesIO(client.crop(png, (49.5, 60, 150, 120.2))))

    assert drawn.shape == (200, 300, 3)
    assert (drawn[60:120, 50] != 255).any(axis=1).all()
    assert (drawn[112, 60:115] == 255).all()
    assert cut.size == (101, 61)
    assert Image.open(io.BytesIO(client.crop(png, (900, 900, 5, 5)))).size == (1, 1)


def test_one_label_has_one_colour() -> None:
    assert page_work._colour("table") == page_work._colour("table") != page_work._colour("title")


def test_what_is_no_image_is_not_drawn_on(client: HostClient) -> None:
    with pytest.raises(ModelError) as refused:
        client.draw(b"\x89PNG\r\n\x1a\nnothing", [])
    assert refused.value.code == "unreadable_document"


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (documents.pdf(1), PDF),
        (b"\0" * 900 + b"%PDF-1.4", PDF),
        (b"\0" * 1100 + b"%PDF-1.4", None),
        (documents.image("PNG"), "image/png"),
        (documents.image("JPEG"), "image/jpeg"),
        (documents.image("WEBP"), "image/webp"),
        (documents.image("TIFF"), "image/tiff"),
        (documents.image("GIF"), None),
        (b"", None),
        (b"PK\x03\x04", None),
    ],
    ids=["pdf", "late pdf", "too late pdf", "png", "jpeg", "webp", "tiff", "gif", "empty", "zip"],
)
def test_the_kind_of_a_document_is_told_by_its_bytes(start: bytes, kind: str | None) -> None:
    assert media_type_of(start) == kind


class Lies:
    """A connection to a runner that says what it likes."""

    def __init__(self, *frames: Frame) -> None:
        self._frames = iter(frames)

    def __call__(self) -> Any:
        return next(self._frames)


@pytest.mark.parametrize(
    "told",
    [
        {"page": 0, "height": 2, "width": 3},
        {"page": 1, "height": 1, "width": 2},
        {"page": 0, "height": -1, "width": -2},
        {"page": 0, "height": 2.0, "width": 1},
        {"page": 0},
    ],
    ids=["other size", "other page", "negative", "no whole number", "no size"],
)
def test_a_runner_that_lies_about_a_page_is_not_believed(told: dict[str, Any]) -> None:
    document = Document(None, 0, PDF)  # type: ignore[arg-type]
    document._next = Lies(Frame({"pixels": True}, memoryview(bytes(6))), Frame(told, memoryview(b"")))  # type: ignore[method-assign]
    with pytest.raises(ProtocolFault):
        document._pixels(0)


def test_a_runner_that_sends_pixels_without_end_is_stopped() -> None:
    pieces, piece = page_work.Pixels(), Frame({"pixels": True}, memoryview(bytes(3 << 20)))
    for _ in range(3 * MAX_PIXELS // (3 << 20)):
        pieces.take(piece)
    with pytest.raises(ProtocolFault):
        pieces.take(piece)


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [{"pixels": True}],
        [{"height": 2, "width": 1}],
        [{"height": 2, "width": 1}, {"pixels": True}],
        [{"height": 1, "width": 1}, {"pixels": True}],
        [{"height": 2, "width": 1}, {"stage": "drawing"}],
        [{"height": 16_384, "width": 16_384}],
    ],
    ids=["nothing", "no size", "no pixels", "too few", "too many", "something else", "too large"],
)
def test_a_runner_that_lies_about_a_drawing_is_not_believed(frames: list[dict[str, Any]]) -> None:
    sent = [Frame(header, memoryview(bytes(4 if "pixels" in header else 0))) for header in frames]
    with pytest.raises(ProtocolFault):
        page_work._written(iter(sent))
