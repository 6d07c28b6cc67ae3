"""What a process pays for being a client, and that the package stands without Django."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from tests.runtimes import hosts

HEAVY = "{'sklearn', 'torch', 'onnxruntime', 'onnx', 'pandas', 'scipy', 'joblib', 'pyseccomp', 'skops'}"


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=hosts.ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize("module", ["runtimes.client", "runtimes.trainers", "runtimes.bundle", "runtimes.signature"])
def test_a_client_imports_no_models_library(module: str) -> None:
    assert run(f"import sys, {module}\nprint(sorted({HEAVY} & set(sys.modules)))") == "[]"


def test_the_host_imports_no_models_library() -> None:
    heavy = HEAVY.replace("'pyseccomp', ", "")
    assert run(f"import sys, runtimes.host\nprint(sorted({heavy} & set(sys.modules)))") == "[]"


def test_nothing_here_imports_django_or_the_project() -> None:
    allowed = {"runtimes", "common"}
    own = {path.name for path in hosts.ROOT.iterdir() if (path / "__init__.py").exists()} | {"django", "tenantry"}
    for path in (hosts.ROOT / "runtimes").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            foreign = {name.partition(".")[0] for name in names} & (own - allowed)
            assert not foreign, f"{path} imports {foreign}"
