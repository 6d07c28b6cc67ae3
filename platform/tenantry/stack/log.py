"""The stack's log: one line a line of any process, with that process's name before it."""

import sys
from collections import deque
from typing import TextIO

NAME_WIDTH = 16
COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
LONGEST_LINE = 16_384
# What a process writes may come from a tenant: it moves no cursor and rewrites no line of a terminal.
UNPRINTABLE = dict.fromkeys([*range(9), *range(10, 32), 127, *range(128, 160)])


class Log:
    """Writes lines to a stream, coloured if that is a terminal, and remembers the last of them."""

    def __init__(self, stream: TextIO = sys.stdout, *, colours: bool = False, kept_lines: int = 40) -> None:
        self._stream = stream
        self._colours = colours
        self._colour_of: dict[str, int] = {}
        self.tail: deque[str] = deque(maxlen=kept_lines)

    def line(self, name: str, text: str) -> None:
        """Write one line."""
        text = text.translate(UNPRINTABLE)
        self.tail.append(f"{name:<{NAME_WIDTH}} | {text}")
        prefix = f"{name:<{NAME_WIDTH}} |"
        if self._colours:
            colour = self._colour_of.setdefault(name, COLOURS[len(self._colour_of) % len(COLOURS)])
            prefix = f"\x1b[{colour}m{prefix}\x1b[0m"
        print(prefix, text, file=self._stream, flush=True)


class Lines:
    """Cuts the bytes of one process into lines of the log."""

    def __init__(self, log: Log, name: str) -> None:
        self._log = log
        self._name = name
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Log every line that `data` completes; a line that never ends is cut."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        for line in whole:
            self._write(line)
        while len(self._rest) > LONGEST_LINE:
            self._write(self._rest[:LONGEST_LINE])
            self._rest = self._rest[LONGEST_LINE:]

    def close(self) -> None:
        """Log what came last without an end of line."""
        if self._rest:
            self._write(self._rest)
            self._rest = b""

    def _write(self, line: bytes) -> None:
        self._log.line(self._name, line.rstrip(b"\r").decode(errors="replace"))
