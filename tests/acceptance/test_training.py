"""Training with real workers: the notebook as it is shown, and workers that are killed in mid-fit."""

import ast
import json
import os
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.acceptance.stack import ROOT, Stack, eventually

sys.path.insert(0, str(ROOT / "clients" / "python" / "src"))  # a project of its own, which nobody has to install here
from tenantry_client import Tenant

NOTEBOOK = ROOT / "docs" / "notebook.ipynb"
TAKEN_UP_S = 60.0


def client_of(stack: Stack) -> Tenant:
    """The client of a new tenant, whose address and token the environment names, as notebooks find them."""
    made = stack.tenant()
    os.environ.update(TENANTRY_URL=made.base_url, TENANTRY_TOKEN=made.token)
    return Tenant(made.base_url, made.token)


def shown(source: str, names: dict[str, Any]) -> Any:
    """What a notebook shows below a cell: the value of its last line, if that is an expression."""
    body = ast.parse(source).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names) if isinstance(last, ast.Expr) else None


def frame(rows: int = 400) -> pd.DataFrame:
    return pd.DataFrame({"a": range(rows), "b": [n % 7 for n in range(rows)], "y": [n % 2 for n in range(rows)]})


@pytest.fixture(scope="module")
def interrupted_run(stack: Stack) -> Any:
    """A run whose worker was killed in mid-fit. It waits for the end of that one's lease while other tests go on."""
    tenant = client_of(stack)
    tenant.datasets.upload(frame(), "t")
    run = tenant.runs.start("random_forest_classifier", "t", "y", "m", params={"n_estimators": 1000})
    eventually(lambda: run.refresh().body["progress"]["stage"] == "fitting", 60, "the fit is under way")
    stack.kill("celery", "training@")
    return run


@pytest.mark.usefixtures("interrupted_run")
def test_the_notebook_runs_from_its_first_cell_to_its_last(stack: Stack) -> None:
    client_of(stack)
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    names: dict[str, Any] = {}
    outputs = [shown("".join(cell["source"]), names) for cell in cells if cell["cell_type"] == "code"]
    trainers, profile, metrics, importance, rate, compared, predicted, measured = outputs
    assert "random_forest_classifier" in trainers
    assert profile == {"rows": 569, "columns": 31}
    assert metrics["accuracy"] > 0.95
    assert len(importance) == 3
    assert 0.03 <= rate <= 0.3
    assert len(compared["roc_auc"]) == 2
    assert predicted == [0, 0, 0]
    assert measured["accuracy"] > 0.9


def test_a_killed_workers_run_is_taken_up_by_another(interrupted_run: Any) -> None:
    run = interrupted_run
    eventually(lambda: run.refresh().body["attempts"] == 2, TAKEN_UP_S, "another worker has it")
    run.wait(120, shows_progress=False)
    assert run.version == 1
    assert run.body["attempts"] == 2


def test_a_notebook_is_json_that_jupyter_reads() -> None:
    told = json.loads(Path(NOTEBOOK).read_text())
    assert (told["nbformat"], told["metadata"]["language_info"]["name"]) == (4, "python")
