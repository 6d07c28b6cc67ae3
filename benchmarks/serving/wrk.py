"""The load: wrk with one thread, which must be on the machine (`apt-get install wrk`)."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).with_name("body.lua")


@dataclass(frozen=True)
class Figures:
    """What one run of the client saw. failed: answers that were no 2xx, and connections that broke or timed out."""

    requests: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    failed: int


def check() -> None:
    """End with a sentence where wrk is missing."""
    if shutil.which("wrk") is None:
        sys.exit("wrk is missing: install it, on Debian with `apt-get install wrk`.")


def load(url: str, body: bytes, authorization: str, connections: int, seconds: int) -> Figures:
    """What a client with so many connections sees, each of which sends its next request after its last answer."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(body)
        file.flush()
        settings = {"BODY_FILE": file.name, "AUTHORIZATION": authorization}
        options = ["-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "--latency", "-s", str(SCRIPT)]
        ended = subprocess.run(
            ["wrk", *options, url], env=os.environ | settings, capture_output=True, text=True, check=True
        )
    return Figures(**json.loads(ended.stdout.partition("FIGURES ")[2].splitlines()[0]))
