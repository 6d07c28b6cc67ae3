"""Tells the story against a running platform: `TENANTRY_URL=http://… python -m clients.demo`."""

import os
import sys
from pathlib import Path

from clients.demo.console import Console
from clients.demo.platform import Operator
from clients.demo.story import Story, tell


def main() -> int:
    """0 when every step came out as it should; else 1, with the step that did not."""
    url = os.environ.get("TENANTRY_URL", "http://127.0.0.1:8000")
    var = Path(os.environ.get("TENANTRY_VAR", "var"))
    console = Console()
    return tell(Story(Operator(url, var / "operator.json"), var / "demo", console))


if __name__ == "__main__":
    sys.exit(main())
