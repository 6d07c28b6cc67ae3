"""The Procfile: the processes of the platform, one a line as `name: command`."""

import re
from pathlib import Path

from tenantry.stack.errors import BadStart

LINE = re.compile(r"([A-Za-z0-9_-]+):\s*(\S.*)")


def read_procfile(path: Path) -> dict[str, str]:
    """The commands by name, in the file's order. A command is one program; the shell expands its variables.

    Raises BadStart.
    """
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise BadStart(f"The list of processes {path} cannot be read: {error.strerror}.") from error
    commands: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = LINE.fullmatch(line.strip())
        if match is None or match[1] in commands:
            raise BadStart(f"{path}, line {number}: expected `name: command`, each name once.")
        commands[match[1]] = match[2]
    return commands
