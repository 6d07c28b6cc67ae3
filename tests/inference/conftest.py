"""Versions to predict with: fitted here, uploaded and inspected through the platform."""

import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from tenants.scope import tenant_scope


def fitted(yes: str = "yes", no: str = "no") -> LogisticRegression:
    """A classifier of 4 features that says `yes` where the first one is above zero, else `no`."""
    rows = np.random.default_rng(7).normal(size=(200, 4))
    return LogisticRegression().fit(rows, np.where(rows[:, 0] > 0, yes, no))


def inspected(version: Any) -> Any:
    """The version, ready: its inspection done here and now, as a worker would do it."""
    from models_registry import execution

    job = version.inspection_job
    job.claim("tests")
    execution.inspect(job)
    version.refresh_from_db()
    assert version.is_ready, version.rejection_reason
    return version


def registered(model_name: str, estimator: Any, **metadata: Any) -> Any:
    """The next version of a model in the tenant in scope, inspected."""
    from models_registry import services
    from models_registry.blobs import IncomingFile
    from models_registry.metadata import parse_metadata

    files = [IncomingFile("model.pkl", io.BytesIO(pickle.dumps(estimator)))]
    return inspected(
        services.register_version(
            model_name=model_name, files=files, metadata=parse_metadata(metadata), actor="tests", create=True
        )
    )


def by_plan() -> Any:
    """A classifier of the columns `age` and `plan` that says 1 for the old ones on the plan `plus`, else 0."""
    people = pd.DataFrame({"age": [20, 30, 60, 70], "plan": ["basic", "basic", "plus", "plus"]})
    encoded = ColumnTransformer([("plan", OneHotEncoder(), ["plan"])], remainder="passthrough")
    return make_pipeline(encoded, LogisticRegression(C=1e6)).fit(people, [0, 0, 1, 1])


@pytest.fixture
def ready_version(model_host: str) -> Callable[..., Any]:
    """`ready_version(tenant, model_name, estimator)`: a version that has been inspected."""
    from models_registry import services
    from models_registry.blobs import IncomingFile

    def make(tenant: Any, model_name: str, estimator: Any, **options: Any) -> Any:
        with tenant_scope(tenant):
            file = IncomingFile("model.pkl", io.BytesIO(pickle.dumps(estimator)))
            version = services.register_version(
                model_name=model_name, files=[file], actor="tests", create=True, **options
            )
            return inspected(version)

    return make


@pytest.fixture
def serving(acme: Any, ready_version: Callable[..., Any]) -> Any:
    """Version 1 of acme's model `churn`, active."""
    from models_registry import services

    version = ready_version(acme, "churn", fitted())
    with tenant_scope(acme):
        services.activate(version=version, actor="tests")
    return version
