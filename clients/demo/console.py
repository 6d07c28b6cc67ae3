"""What the demo prints: numbered steps with their results, progress in place, and tables."""

import sys
import time
from collections.abc import Iterable, Sequence


class Console:
    """Writes to standard output; colours and progress in place only on a terminal."""

    def __init__(self) -> None:
        self.is_terminal = sys.stdout.isatty()
        self.number = 0
        self.started = time.monotonic()
        self._shown: object = None

    def step(self, title: str) -> None:
        """Begin a step."""
        self.number += 1
        self.started = time.monotonic()
        self._line(f"\n{self._bold(f'{self.number:2d}. {title}')}")

    def result(self, text: str) -> None:
        """Say what came out."""
        self._line(f"    {self._green('ok')}  {text}  {self._dim(f'{time.monotonic() - self.started:.1f} s')}")

    def failure(self, text: str) -> None:
        """Say what did not."""
        self._line(f"    {self._red('FAILED')} in step {self.number}: {text}")

    def detail(self, text: str) -> None:
        """Say more about the step."""
        self._line(f"        {text}")

    def progress(self, percent: float, text: str) -> None:
        """Show how far the step is: in place on a terminal; elsewhere a line for each stage and each tenth of it."""
        filled = round(percent / 5)
        bar = f"        [{'#' * filled}{'.' * (20 - filled)}] {percent:3.0f} %  {text}"
        if self.is_terminal:
            sys.stdout.write(f"\r{bar:<78}" + ("\n" if percent >= 100 else ""))
            sys.stdout.flush()
        elif self._shown != (self.number, text, percent // 10):
            self._shown = (self.number, text, percent // 10)
            self._line(bar)

    def table(self, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """A table with aligned columns."""
        cells = [list(map(str, row)) for row in [head, *rows]]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for index, row in enumerate(cells):
            line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            self._line(f"    {self._bold(line) if index == 0 else line}")

    def title(self, text: str) -> None:
        """A heading."""
        self._line(f"\n{self._bold(text)}")

    def _line(self, text: str) -> None:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    def _bold(self, text: str) -> str:
        return self._coloured("1", text)

    def _dim(self, text: str) -> str:
        return self._coloured("2", text)

    def _green(self, text: str) -> str:
        return self._coloured("32", text)

    def _red(self, text: str) -> str:
        return self._coloured("31", text)

    def _coloured(self, code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self.is_terminal else text
