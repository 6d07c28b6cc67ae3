"""`python -m benchmarks.serving`: run the contestants, print the table, keep what was measured."""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.machine import described
from benchmarks.serving import peers, report, wrk
from benchmarks.serving.cases import Case, write_models
from benchmarks.serving.contestants import Contestant, await_answer
from benchmarks.serving.platform import Platform

CONNECTIONS = (1, 32)
WARM_UP_S = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, keep; 1 when anybody answered wrongly or an answer of ours failed."""
    options = _parse(arguments)
    wrk.check()
    with tempfile.TemporaryDirectory(prefix="tenantry-models-") as name:
        models = Path(name)
        cases = write_models(models)
        contestants: list[Contestant] = [*ours(models), peers.bare_django(models)]
        installed = ["granian", *_with_peers(contestants, options, models)]
        rows = [
            row
            for number in range(options.rounds)
            for contestant in contestants
            if options.only in contestant.name
            for row in _round(contestant, cases, options.seconds, number)
        ]
    kept = {"machine": described(), "contestants": installed, "rounds": options.rounds, "rows": rows}
    options.out.write_text(json.dumps(kept, indent=1))
    print(report.table(kept))
    return int(any(row["wrong"] or (row["failed"] and row["contestant"].startswith("Tenantry")) for row in rows))


def ours(models: Path) -> tuple[Contestant, ...]:
    """Tenantry's own set-ups."""
    return (
        Platform("Tenantry, direct", models, {"PREDICTION_LANE": "direct"}),
        Platform(
            "Tenantry, direct, not compiled", models, {"PREDICTION_LANE": "direct", "COMPILE_SECONDS": "0"}, ("forest",)
        ),
        Platform("Tenantry, queue", models, {"PREDICTION_LANE": "queue"}),
    )


def _with_peers(contestants: list[Contestant], options: argparse.Namespace, models: Path) -> list[str]:
    """Add the peers that can be installed; their versions."""
    versions = []
    for name in options.peers:
        print(f"installing {name}", file=sys.stderr)
        if (reason := peers.install(name, options.environments)) is not None:
            print(f"{name} is skipped: {reason}", file=sys.stderr)
            continue
        peers.prepare(name, options.environments, models)
        contestants += peers.contestants(name, options.environments, models)
        versions.append(peers.versions(name, options.environments))
    return versions


def _round(contestant: Contestant, cases: Sequence[Case], seconds: int, number: int) -> list[dict[str, Any]]:
    """One contestant's figures, a start for each of its models; none, said aloud, when it does not come up."""
    rows: list[dict[str, Any]] = []
    asked = [case for case in cases if contestant.takes(case)]
    for model in dict.fromkeys(case.model for case in asked):
        try:
            with contestant.running(model) as endpoint_of:
                for case in (case for case in asked if case.model == model):
                    rows += _measured(contestant, case, endpoint_of(case), seconds, number)
        except (RuntimeError, TimeoutError, OSError) as error:
            print(f"{contestant.name} gave nothing for {model}: {error}", file=sys.stderr)
    return rows


def _measured(contestant: Contestant, case: Case, endpoint: Any, seconds: int, number: int) -> list[dict[str, Any]]:
    is_right = contestant.classes(await_answer(endpoint)) == case.expected
    wrk.load(endpoint.url, endpoint.body, endpoint.authorization, max(CONNECTIONS), WARM_UP_S)
    rows = []
    for connections in CONNECTIONS:
        figures = wrk.load(endpoint.url, endpoint.body, endpoint.authorization, connections, seconds)
        about = {"contestant": contestant.name, "case": case.name, "connections": connections, "round": number}
        rows.append({**about, **asdict(figures), "wrong": not is_right})
        print(json.dumps(rows[-1]), file=sys.stderr)
    return rows


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving")
    parser.add_argument("--peers", default="", help=f"comma-separated names of {', '.join(peers.PACKAGES)}; or usual")
    parser.add_argument("--only", default="", help="run those alone whose name contains this")
    parser.add_argument("--seconds", type=int, default=5, help="of each load (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=1, help="of everybody in turn (default: %(default)s)")
    parser.add_argument("--environments", type=Path, default=Path(".bench"), help="where peers are installed")
    parser.add_argument("--out", type=Path, default=Path(".bench/serving.json"), help="what was measured, as JSON")
    options = parser.parse_args(arguments)
    named = peers.USUAL if options.peers == "usual" else filter(None, options.peers.split(","))
    options.peers = [name for name in named if name in peers.PACKAGES or parser.error(f"there is no peer {name}")]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    return options


if __name__ == "__main__":
    sys.exit(main())
