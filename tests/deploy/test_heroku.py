"""Heroku's layout by its real commands: a web process without a model host, workers that each bring their own."""

import pickle
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sklearn.linear_model import LogisticRegression

from clients.demo.platform import Tenant
from tests.deploy import files
from tests.deploy.test_commands import answers, await_true, free_port, running


@pytest.fixture
def token(committed_tenant: Any, django_db_blocker: Any) -> str:
    """A token with every scope, of a tenant whose files are in the database."""
    from tenants.models import ApiToken

    with django_db_blocker.unblock():
        committed_tenant.storage_alias = "database"
        committed_tenant.save()
        return ApiToken.mint(name="test", tenant=committed_tenant, scopes=["admin"])[1]


def test_a_web_dyno_predicts_through_a_worker_dyno(committed_tenant: Any, token: str, tmp_path: Path) -> None:
    commands, port = files.heroku_commands(), free_port()
    with ExitStack() as dynos:
        for name in ("web", "worker-default", "worker-inference"):
            disk = tmp_path / name  # of this dyno alone
            disk.mkdir()
            settings = {"PORT": str(port), "WEB_HOST": "127.0.0.1", "WEB_WORKERS": "1", "BLOB_CACHE_ROOT": str(disk)}
            # An empty value keeps away the one of the servers that these tests share.
            settings |= {"TENANTRY_MODELS_SOCKET": "", "UPLOAD_TEMP_DIR": str(disk), "MODELS_ROOT": "/nonexistent"}
            dynos.enter_context(running(commands[name].split(), **settings))
        await_true(lambda: answers(port, "/readyz"))
        tenant = Tenant(f"http://127.0.0.1:{port}", committed_tenant.tenant_id, token)
        tenant.ensure_model("sign", "Whether a number is above zero.")
        model = pickle.dumps(LogisticRegression().fit([[-2.0], [-1.0], [1.0], [2.0]], ["no", "no", "yes", "yes"]))
        tenant.upload("models/sign/versions", {"sign.pkl": model}, metadata={})
        inspected = tenant.inspected("sign", 1)
        assert inspected["state"] == "ready", inspected
        tenant.post("models/sign/versions/1/activate")
        assert tenant.post("models/sign/predict", {"instances": [[3.0], [-3.0]]})["predictions"] == ["yes", "no"]
    assert any((tmp_path / "worker-inference").iterdir()), "the version's files came to the worker's own disk"
