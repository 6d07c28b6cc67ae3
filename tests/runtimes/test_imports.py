"""What a process pays for being a client, and that the package stands without Django."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.runtimes import hosts

HEAVY = "{'sklearn', 'torch', 'onnxruntime', 'onnx', 'pandas', 'scipy', 'joblib', 'pyseccomp', 'skops'}"
WALK = "[module.name for module in pkgutil.walk_packages(runtimes.__path__, 'runtimes.')]"


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=hosts.ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize("module", ["runtimes.client", "runtimes.trainers", "runtimes.bundle", "runtimes.signature"])
def test_a_client_imports_no_models_library(module: str) -> None:
    assert run(f"import sys, {module}\nprint(sorted({HEAVY} & set(sys.modules)))") == "[]"


def test_the_host_imports_no_models_library() -> None:
    heavy = HEAVY.replace("'pyseccomp', ", "")
    assert run(f"import sys, runtimes.host\nprint(sorted({heavy} & set(sys.modules)))") == "[]"


def test_nothing_here_imports_django() -> None:
    code = f"import importlib, pkgutil, runtimes, sys\nfor name in {WALK}: importlib.import_module(name)\n"

    assert run(code + "print('django' in sys.modules)") == "False"
