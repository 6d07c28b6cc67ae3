"""Documents for tests: honest ones from tools that are not under test, and such as are built to harm."""

from __future__ import annotations

import io
import struct
import subprocess
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from reportlab.lib import pdfencrypt
from reportlab.pdfgen.canvas import Canvas

CHROMIUM = Path("/usr/bin/chromium")
PAGE = (595.0, 842.0)
HTML = """
<style>@page {{ size: A4; margin: 20mm }} h1 {{ break-before: page }} table {{ border-collapse: collapse }}
td {{ border: 1px solid black; padding: 4px }}</style>
{chapters}
"""


def pdf(pages: int = 2, size: tuple[float, float] = PAGE, **options: Any) -> bytes:
    """A PDF by reportlab: on each page a black square whose upper left corner is at (100, 100) points, 50 wide."""
    out = io.BytesIO()
    canvas = Canvas(out, pagesize=size, **options)
    for number in range(1, pages + 1):
        canvas.drawString(300, 400, f"Page {number} of {pages}")
        canvas.rect(100, size[1] - 150, 50, 50, stroke=0, fill=1)
        canvas.showPage()
    canvas.save()
    return out.getvalue()


def encrypted_pdf() -> bytes:
    """A PDF that nobody opens without its password."""
    return pdf(1, encrypt=pdfencrypt.StandardEncryption("user", "owner"))


def printed_pdf(chapters: int) -> bytes:
    """What Chromium prints of a page of HTML: a chapter a page, with a table."""
    told = "".join(
        f"<h1>Chapter {number}</h1><p>{'words ' * 80}</p><table><tr><td>{number}</td><td>cell</td></tr></table>"
        for number in range(1, chapters + 1)
    )
    with tempfile.TemporaryDirectory() as name:
        page, printed = Path(name, "page.html"), Path(name, "page.pdf")
        page.write_text(HTML.format(chapters=told))
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer", f"--user-data-dir={name}/p"]
        command = [str(CHROMIUM), *options, f"--print-to-pdf={printed}", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        return printed.read_bytes()


def plain_pdf(*objects: str, count: int = 0, kids: str = "") -> bytes:
    """A PDF written by hand: catalog, page tree, and these objects from number 3 on."""
    parts = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {count} >>",
        *objects,
    ]
    out = b"%PDF-1.4\n"
    places = []
    for number, part in enumerate(parts, start=1):
        places.append(len(out))
        out += f"{number} 0 obj\n{part}\nendobj\n".encode()
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    head = f"xref\n0 {len(parts) + 1}\n0000000000 65535 f \n{table}"
    return out + f"{head}trailer\n<< /Size {len(parts) + 1} /Root 1 0 R >>\nstartxref\n{len(out)}\n%%EOF".encode()


def image(name: str, size: tuple[int, int] = (60, 40), **options: Any) -> bytes:
    """A file of Pillow's: white, with a black upper left quarter."""
    made = Image.new("RGB", size, "white")
    made.paste("black", (0, 0, size[0] // 2, size[1] // 2))
    out = io.BytesIO()
    made.save(out, name, **options)
    return out.getvalue()


def tiff(*sizes: tuple[int, int]) -> bytes:
    """A TIFF of several images."""
    first, *others = [Image.new("RGB", size, "white") for size in sizes]
    out = io.BytesIO()
    first.save(out, "TIFF", save_all=True, append_images=others)
    return out.getvalue()


def png_bomb(side: int) -> bytes:
    """A PNG of so many pixels a side, all black, in a few bytes."""
    row = bytes(1 + side // 8)
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


@contextmanager
def stored(data: bytes) -> Iterator[int]:
    """A descriptor of a file without a name that holds these bytes."""
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        yield file.fileno()
