"""What the pictures show: a tenant with models that serve, a rejected upload, a run and some traffic."""

import pickle
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clients.demo import artifacts
from clients.demo.platform import Operator, Tenant

CARD = """## What it is for

Says which customers are likely to leave within a month, for the team that calls them.

| | |
|---|---|
| **Trained on** | customers of the last two years |
| **Not for** | prices |
"""
REGISTRY = "models_registry"


@dataclass(frozen=True)
class Scene:
    """A page to take a picture of. path: below the admin's address. kept: its looks that the documents show."""

    name: str
    path: str
    kept: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stage:
    """A furnished tenant and who looks at it. runs: the paths of its runs below the admin's address."""

    tenant: Tenant
    email: str
    password: str
    runs: tuple[str, ...] = ()


OPERATORS = (
    Scene("operator", ""),
    Scene("tenants", "tenants/tenant/"),
    Scene("tenants-usage", "tenants-usage/"),
    Scene("workers", "workers/"),
    Scene("model-hosts", "model-hosts/"),
)


def furnish(operator: Operator) -> Stage:
    """A new tenant with something on each page."""
    tenant_id = f"acme-{uuid.uuid4().hex[:6]}"
    tenant, admin = operator.tenant(tenant_id, "Acme")
    if admin is None:
        raise RuntimeError(f"the tenant {tenant_id} is not new")
    table = artifacts.breast_cancer()
    for trees in (5, 20, 60):
        _upload(tenant, "churn", artifacts.forest_pickle(table, trees), 0.9 + trees / 1000)
    tenant.session.patch(
        f"{tenant.base_url}/api/v1/models/churn", json={"description": CARD, "tags": {"team": "growth"}}, timeout=60
    ).raise_for_status()
    _upload(tenant, "fraud", artifacts.forest_pickle(table, 30), 0.93)
    for model, number, reason in (
        ("churn", 1, "The first."),
        ("fraud", 1, ""),
        ("churn", 2, "Better on last month's customers."),
    ):
        tenant.post(f"models/{model}/versions/{number}/activate", {"reason": reason})
    tenant.upload("models/fraud/versions", {"model.pkl": pickle.dumps({"not": "a model"})})
    runs = tuple(f"training/run/{run}" for run in _train(tenant, table))
    _ask(tenant, table.held.rows)
    return Stage(tenant, str(admin["email"]), str(admin["password"]), runs)


def scenes(model: str, version: str, runs: Sequence[str]) -> list[Scene]:
    """The pages of a tenant's admin. model, version, runs: the paths of some."""
    compared = ",".join(run.rpartition("/")[2] for run in runs)
    return [
        Scene("home", "", ("wide light", "wide dark")),
        Scene("models", f"{REGISTRY}/registeredmodel/"),
        Scene("model", f"{model}/change/", ("wide light", "narrow light")),
        Scene("canary", f"{model}/deployment/"),
        Scene("versions", f"{REGISTRY}/modelversion/"),
        Scene("version", f"{version}/change/", ("wide light",)),
        Scene("activate", f"{version}/activate/", ("wide light",)),
        Scene("try", f"{version}/try/"),
        Scene("files", f"{version}/files/"),
        Scene("upload", f"{REGISTRY}/modelversion/add/"),
        Scene("runs", "training/run/"),
        Scene("run", f"{runs[-1]}/change/"),
        Scene("compare", f"training/run/compare/?ids={compared}"),
        Scene("start-a-run", "training/run/add/"),
        Scene("datasets", "training/dataset/"),
        Scene("tokens", "tenants/apitoken/"),
        Scene("members", "tenants/membership/"),
        Scene("audit", "journal/auditevent/"),
        Scene("usage", "usage/"),
        Scene("settings", "settings/"),
    ]


def _upload(tenant: Tenant, model: str, content: bytes, accuracy: float) -> None:
    tenant.ensure_model(model, "")
    metadata: Mapping[str, Any] = {
        "metrics": {"accuracy": round(accuracy, 4), "log_loss": round(1.1 - accuracy, 4)},
        "params": {"max_depth": 8},
        "tags": {"team": "growth"},
    }
    made = tenant.upload(f"models/{model}/versions", {"model.pkl": content}, metadata=metadata)
    tenant.inspected(model, int(made["number"]))


def _train(tenant: Tenant, table: artifacts.Table) -> Iterator[str]:
    """The ids of runs that have ended."""
    tenant.upload("datasets", {"customers.csv": table.csv("left")}, name="customers")
    asked = {"trainer": "logistic_regression", "dataset": "customers", "target": "left", "model": "churn-trained"}
    for strength in (0.01, 1.0):
        run = tenant.post("runs", asked | {"params": {"C": strength}})
        tenant.watch(f"runs/{run['id']}", lambda percent, stage: None)
        yield str(run["id"])


def _ask(tenant: Tenant, rows: list[list[float]]) -> None:
    for count in np.random.default_rng(0).integers(1, 20, size=60).tolist():
        tenant.post("models/churn/predict", {"instances": rows[:count]})
