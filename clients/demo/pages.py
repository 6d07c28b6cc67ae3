"""Made-up document pages whose layout is known: a PDF, and the same pages as a COCO zip for `page_detector`.

    python -m clients.demo.pages FOLDER --count 200 --seed 1

Each page has titles, paragraphs, tables and figures, in one column or two, in changing fonts and sizes. reportlab draws
them, so their boxes are known to the point; the images in the zip are rendered from that PDF.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LABELS = ("title", "paragraph", "table", "figure")
WORDS_TEXT = """
the of and to in that is was for on with as by at from or an be this which revenue quarter report model data result
figure page total growth market system value method analysis table section average increase decrease observed under
between during measured annual service customer product cost margin forecast region northern southern energy supply
demand capacity estimate policy project review summary appendix international committee participants approximately
"""
WORDS = WORDS_TEXT.split()
FAMILIES = (
    ("Helvetica", "Helvetica-Bold"),
    ("Times-Roman", "Times-Bold"),
    ("Courier", "Courier-Bold"),
)
WIDTH, HEIGHT = 595.0, 842.0  # A4 in points
LEADING = 1.25
ASCENT, DESCENT = 0.75, 0.22  # of a line of letters, in its size: where a box ends that holds it closely

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Part:
    """Something on a page: its label, and its box in points from the page's upper left corner."""

    label: str
    box: Box


def make_pages(count: int, seed: int = 0) -> tuple[bytes, list[list[Part]]]:
    """A PDF of so many pages, and what is on each."""
    from reportlab.pdfgen.canvas import Canvas  # a library for development, which the rest of the demo does not need

    out, chance = io.BytesIO(), random.Random(seed)  # noqa: S311 (pages, not secrets)
    canvas = Canvas(out, pagesize=(WIDTH, HEIGHT), invariant=True)
    canvas.setTitle(f"{count} made-up pages")
    layouts = []
    for number in range(1, count + 1):
        layouts.append(_Page(canvas, chance, number).draw())
        canvas.showPage()
    canvas.save()
    return out.getvalue(), layouts


class _Page:
    """One page, filled from its top; y runs downwards here and upwards in the PDF."""

    def __init__(self, canvas: Any, chance: random.Random, number: int) -> None:
        self._canvas, self._chance, self._number = canvas, chance, number
        self._plain, self._bold = chance.choice(FAMILIES)
        self._size = chance.uniform(8, 12)
        self._parts: list[Part] = []

    def draw(self) -> list[Part]:
        chance = self._chance
        margin = chance.uniform(36, 80)
        top = chance.uniform(40, 90)
        if chance.random() < 0.7:
            self._line(str(self._number), WIDTH / 2, HEIGHT - 24, 8, self._plain)
        if chance.random() < 0.6:
            top = self._title(margin, top, WIDTH - 2 * margin, chance.uniform(18, 28)) + chance.uniform(10, 24)
        columns = chance.choice((1, 1, 2))
        gap = chance.uniform(16, 30)
        width = (WIDTH - 2 * margin - gap * (columns - 1)) / columns
        for column in range(columns):
            self._fill(margin + column * (width + gap), top, width, HEIGHT - chance.uniform(50, 110))
        return self._parts

    def _fill(self, left: float, top: float, width: float, bottom: float) -> None:
        chance = self._chance
        while bottom - top > 60:
            kind = chance.choices(("title", "paragraph", "table", "figure"), (0.22, 0.42, 0.18, 0.18))[0]
            room = bottom - top
            if kind == "title":
                top = self._title(left, top, width, chance.uniform(12, 18))
            elif kind == "paragraph":
                top = self._paragraph(left, top, width, room)
            elif kind == "table":
                top = self._table(left, top, width, room)
            else:
                top = self._figure(left, top, width, room)
            top += chance.uniform(10, 26)

    def _words(self, count: int) -> str:
        return " ".join(self._chance.choices(WORDS, k=count))

    def _line(self, text: str, left: float, baseline: float, size: float, font: str) -> None:
        self._canvas.setFont(font, size)
        self._canvas.drawString(left, HEIGHT - baseline, text)

    def _measure(self, text: str, size: float, font: str) -> float:
        width: float = self._canvas.stringWidth(text, font, size)
        return width

    def _wrapped(self, words: Sequence[str], width: float, size: float, font: str) -> list[str]:
        lines, line = [], ""
        for word in words:
            longer = f"{line} {word}".strip()
            if line and self._measure(longer, size, font) > width:
                lines.append(line)
                longer = word
            line = longer
        return [*lines, line]

    def _text(self, label: str, lines: Sequence[str], left: float, top: float, size: float, font: str) -> float:
        """The lines drawn below `top`, and kept as a part; where they end."""
        leading = size * LEADING
        for place, line in enumerate(lines):
            self._line(line, left, top + size * ASCENT + place * leading, size, font)
        end = top + size * (ASCENT + DESCENT) + (len(lines) - 1) * leading
        right = left + max(self._measure(line, size, font) for line in lines)
        self._parts.append(Part(label, (left, top, right, end)))
        return end

    def _title(self, left: float, top: float, width: float, size: float) -> float:
        words = self._words(self._chance.randint(2, 6)).title().split()
        lines = self._wrapped(words, width, size, self._bold)[:2]
        return self._text("title", lines, left, top, size, self._bold)

    def _paragraph(self, left: float, top: float, width: float, room: float) -> float:
        most = max(2, int(room / (self._size * LEADING)) - 1)
        count = min(self._chance.randint(2, 14), most)
        lines = self._wrapped(self._words(14 * count).split(), width, self._size, self._plain)[:count]
        last = lines[-1].split()
        lines[-1] = " ".join(last[: self._chance.randint(1, len(last))])
        return self._text("paragraph", lines, left, top, self._size, self._plain)

    def _table(self, left: float, top: float, width: float, room: float) -> float:
        chance, canvas = self._chance, self._canvas
        size = self._size * 0.9
        height = size * chance.uniform(1.5, 2.1)
        rows, columns = min(chance.randint(3, 10), int(room / height)), chance.randint(2, 5)
        across = width / columns
        style = chance.choice(("grid", "lines", "head"))
        canvas.setLineWidth(chance.uniform(0.4, 1))
        if style == "head":
            canvas.setFillGray(chance.uniform(0.7, 0.9))
            canvas.rect(left, HEIGHT - top - height, width, height, stroke=0, fill=1)
            canvas.setFillGray(0)
        for row in range(rows + 1):
            if style != "head" or row in (0, 1, rows):
                canvas.line(left, HEIGHT - top - row * height, left + width, HEIGHT - top - row * height)
        if style == "grid":
            for column in range(columns + 1):
                x = left + column * across
                canvas.line(x, HEIGHT - top, x, HEIGHT - top - rows * height)
        for row in range(rows):
            for column in range(columns):
                is_word = row == 0 or column == 0
                text = chance.choice(WORDS) if is_word else f"{chance.uniform(0, 1000):.{chance.randint(0, 2)}f}"
                font = self._bold if row == 0 else self._plain
                while text and self._measure(text, size, font) > across - 6:
                    text = text[:-1]
                self._line(text, left + column * across + 4, top + row * height + height * 0.68, size, font)
        end = top + rows * height
        self._parts.append(Part("table", (left, top, left + width, end)))
        return end

    def _figure(self, left: float, top: float, width: float, room: float) -> float:
        height = min(self._chance.uniform(70, 190), room - 8)
        wide = width * self._chance.uniform(0.6, 1)
        left += (width - wide) * self._chance.random()
        self._chance.choice((self._bars, self._curve, self._photo))(left, top, wide, height)
        self._parts.append(Part("figure", (left, top, left + wide, top + height)))
        return top + height

    def _colour(self) -> None:
        self._canvas.setFillColorRGB(*(self._chance.uniform(0.1, 0.8) for _ in range(3)))

    def _frame(self, left: float, top: float, width: float, height: float) -> None:
        self._canvas.setLineWidth(0.7)
        self._canvas.rect(left, HEIGHT - top - height, width, height, stroke=1, fill=0)

    def _bars(self, left: float, top: float, width: float, height: float) -> None:
        self._frame(left, top, width, height)
        count = self._chance.randint(4, 10)
        step = width / (count + 1)
        self._colour()
        for bar in range(count):
            tall = height * self._chance.uniform(0.1, 0.9)
            self._canvas.rect(left + step * (bar + 0.6), HEIGHT - top - height, step * 0.7, tall, stroke=0, fill=1)
        self._canvas.setFillGray(0)

    def _curve(self, left: float, top: float, width: float, height: float) -> None:
        self._frame(left, top, width, height)
        for _ in range(self._chance.randint(1, 3)):
            self._canvas.setStrokeColorRGB(*(self._chance.uniform(0, 0.7) for _ in range(3)))
            self._canvas.setLineWidth(self._chance.uniform(0.8, 2))
            path = self._canvas.beginPath()
            path.moveTo(left, HEIGHT - top - height * self._chance.random())
            for step in range(1, 13):
                path.lineTo(left + width * step / 12, HEIGHT - top - height * self._chance.uniform(0.05, 0.95))
            self._canvas.drawPath(path)
        self._canvas.setStrokeGray(0)

    def _photo(self, left: float, top: float, width: float, height: float) -> None:
        """Overlapping shapes on a ground, which fill their frame as a photograph does."""
        self._colour()
        self._canvas.rect(left, HEIGHT - top - height, width, height, stroke=0, fill=1)
        for _ in range(self._chance.randint(4, 12)):
            self._colour()
            wide, tall = width * self._chance.uniform(0.1, 0.5), height * self._chance.uniform(0.1, 0.5)
            x, y = left + (width - wide) * self._chance.random(), top + (height - tall) * self._chance.random()
            shape = self._chance.choice((self._canvas.rect, self._oval))
            shape(x, HEIGHT - y - tall, wide, tall, stroke=0, fill=1)
        self._canvas.setFillGray(0)

    def _oval(self, x: float, y: float, width: float, height: float, **options: int) -> None:
        self._canvas.ellipse(x, y, x + width, y + height, **options)


def coco_zip(pdf: bytes, layouts: Sequence[Sequence[Part]], dpi: int = 72) -> bytes:
    """The pages as PNG images in a zip, with their parts in `annotations.json` as COCO has them, in pixels."""
    import pypdfium2  # the demo needs it for its training data only

    out, scale = io.BytesIO(), dpi / 72
    document = pypdfium2.PdfDocument(pdf)
    sizes = []
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for number in range(1, len(layouts) + 1):
            image = document[number - 1].render(scale=scale).to_pil()
            sizes.append(image.size)
            png = io.BytesIO()
            image.save(png, "PNG", compress_level=3)
            archive.writestr(f"images/{number:04}.png", png.getvalue())
        archive.writestr("annotations.json", json.dumps(_coco(layouts, sizes, scale)))
    return out.getvalue()


def _coco(layouts: Sequence[Sequence[Part]], sizes: Sequence[tuple[int, int]], scale: float) -> dict[str, Any]:
    numbers = {label: number for number, label in enumerate(LABELS, start=1)}
    images = [
        {"id": number, "file_name": f"{number:04}.png", "width": width, "height": height}
        for number, (width, height) in enumerate(sizes, start=1)
    ]
    parts = [(number, part) for number, layout in enumerate(layouts, start=1) for part in layout]
    annotations = []
    for place, (number, part) in enumerate(parts, start=1):
        x0, y0, x1, y1 = (round(value * scale, 2) for value in part.box)
        box = [x0, y0, round(x1 - x0, 2), round(y1 - y0, 2)]
        told = {"id": place, "image_id": number, "category_id": numbers[part.label], "bbox": box}
        annotations.append({**told, "area": round(box[2] * box[3], 2), "iscrowd": 0})
    categories = [{"id": number, "name": label} for label, number in numbers.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write `pages.pdf` and `pages.zip` into a folder."""
    parser = argparse.ArgumentParser(prog="python -m clients.demo.pages", description="Made-up document pages.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dpi", type=int, default=72, help="of the images in the zip")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    pdf, layouts = make_pages(options.count, options.seed)
    (options.folder / "pages.pdf").write_bytes(pdf)
    (options.folder / "pages.zip").write_bytes(coco_zip(pdf, layouts, options.dpi))
    return 0


if __name__ == "__main__":
    sys.exit(main())
