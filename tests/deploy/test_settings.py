"""A bad value ends the start with one sentence; what Heroku and compose say is understood."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from tenantry import environment
from tenantry.environment import with_certificate_check
from tests.deploy.files import ROOT

BAD = {
    "DATABASE_URL": ["mysql://user@host/name", "nonsense", "postgres://host:port/name"],
    "REDIS_URL": ["http://host", "valkey:6379"],
    "BROKER_URL": ["kafka://host"],
    "CLOUDAMQP_URL": ["https://host"],
    "REDIS_CHECK_CERTIFICATE": ["perhaps"],
    "CSRF_TRUSTED_ORIGINS": ["models.example.com"],
    "BEHIND_TLS_PROXY": ["https"],
    "PROXY_COUNT": ["one"],
    "DEBUG": ["2"],
    "LOG_LEVEL": ["loud"],
    "UPLOAD_TEMP_DIR": ["/dev/null/folder"],
    "BLOB_CACHE_BYTES": ["20G", "0"],
    "DATASET_MAX_BYTES": ["1G", "0"],
    "DOCUMENT_MAX_PAGES": ["all"],
    "STATIC_STORAGE": ["ftp", "s3"],  # s3 without a bucket
    "TENANT_STORAGE": ["tape", "s3", "custom"],  # custom without a backend
    "AWS_S3_ENDPOINT_URL": ["s3.example.com"],
    "TENANT_STORAGE_OPTIONS": ["{", "[]"],
    "PREDICTION_LANE": ["fast"],
    "PREDICTION_DEADLINE_S": ["-1"],
    "WARM_UP_SECONDS": ["soon"],
    "COMPILE_SECONDS": ["-1", "soon"],
    "MODEL_LIMITS": ["[]", '{"memory": 1}', '{"rows": 0}', '{"rows": "many"}'],
}
CASES = [(name, value) for name, values in BAD.items() for value in values]
# What must be there for a setting to be looked at, and must not be for it to count.
BESIDES = {"TENANT_STORAGE_OPTIONS": {"TENANT_STORAGE_BACKEND": "some.Storage"}, "CLOUDAMQP_URL": {"BROKER_URL": ""}}
BESIDES["REDIS_CHECK_CERTIFICATE"] = {"REDIS_URL": "rediss://host"}
# Runs `manage.py check` once for each of the settings that it reads. Python and Django are imported for all of them;
# each has a process of its own that reads manage.py and what it imports of the project.
EACH = """
import json, os, runpy, sys, tempfile
import django.core.management, environ
answers, sys.argv = [], ["manage.py", "check"]
for settings in json.load(sys.stdin):
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        if not (child := os.fork()):
            os.dup2(out.fileno(), 1), os.dup2(err.fileno(), 2)
            os.environ.update(settings)
            runpy.run_path("manage.py", run_name="__main__")
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        answers.append([status, *((file.seek(0), file.read())[1] for file in (out, err))])
json.dump(answers, sys.stdout)
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it said."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture(scope="module")
def checks() -> Mapping[tuple[str, str], Ended]:
    """How `manage.py check` ends with each bad value."""
    asked = [{**BESIDES.get(name, {}), name: value} for name, value in CASES]
    told = subprocess.run(
        [sys.executable, "-c", EACH], cwd=ROOT, input=json.dumps(asked), capture_output=True, text=True, check=True
    )
    return {case: Ended(*answer) for case, answer in zip(CASES, json.loads(told.stdout), strict=True)}


@pytest.mark.parametrize(("name", "value"), CASES)
def test_a_bad_value_ends_manage_py_with_one_sentence(checks: Any, name: str, value: str) -> None:
    ended = checks[name, value]
    assert ended.returncode == 2
    sentence = ended.stderr.removeprefix("tenantry: ")
    assert name in sentence or name == "CLOUDAMQP_URL"
    assert len(sentence.splitlines()) == 1
    assert ended.stdout == ""


@pytest.mark.parametrize("name", ["DATABASE_URL", "REDIS_URL"])
def test_a_missing_server_is_named(name: str) -> None:
    ended = manage("check", **{name: ""}, TENANTRY_VAR="/nonexistent", SECRET_KEY="x")
    assert (ended.returncode, ended.stderr.split(":")[1].strip()) == (2, f"{name} is not set")


@pytest.mark.parametrize("name", ["WEB_WORKERS", "WEB_THREADS", "TRAINING_PROCESSES", "MODEL_MEMORY_BYTES"])
def test_a_bad_count_ends_the_stack_with_one_sentence(name: str) -> None:
    command = [sys.executable, "-m", "tenantry.stack", "up", "--port", "0", "--var", "/nonexistent/var"]
    ended = subprocess.run(
        command, cwd=ROOT, env={**os.environ, name: "many"}, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stderr) == (
        2,
        f"tenantry: {name} must be a whole number above zero, not 'many'.\n",
    )


def test_what_compose_leaves_empty_means_the_default() -> None:
    urls = ("BROKER_URL", "CLOUDAMQP_URL", "AWS_S3_ENDPOINT_URL", "ALLOWED_HOSTS", "MODELS_ROOT")
    values = ("BLOB_CACHE_BYTES", "LOG_LEVEL", "TENANT_STORAGE", "TENANT_STORAGE_OPTIONS", "PREDICTION_DEADLINE_S")
    lines = "from django.conf import settings as s; print(s.TENANT_STORAGE, s.ALLOWED_HOSTS, s.BLOB_CACHE_BYTES)"
    ended = manage("shell", "--no-imports", "-c", lines, REDIS_URL="redis://host", **dict.fromkeys(urls + values, ""))
    assert ended.stdout == "filesystem ['*'] 21474836480\n"


def test_a_rediss_address_says_whether_certificates_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert with_certificate_check("rediss://:p@host:6380/1") == "rediss://:p@host:6380/1?ssl_cert_reqs=required"
    monkeypatch.setenv("REDIS_CHECK_CERTIFICATE", "no")
    assert with_certificate_check("rediss://host") == "rediss://host?ssl_cert_reqs=none"
    assert with_certificate_check("rediss://host?ssl_cert_reqs=optional") == "rediss://host?ssl_cert_reqs=optional"
    assert with_certificate_check("redis://host") == "redis://host"


def test_a_silent_database_ends_in_an_error_unless_its_address_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgres://u:p@host/name?connect_timeout=60&sslmode=require")
    config = environment.database()
    assert config["HOST"] == "host"
    assert config["OPTIONS"] == {"connect_timeout": 60, "tcp_user_timeout": 10_000, "sslmode": "require"}


def manage(*arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    """A command of manage.py, run with these settings over the session's."""
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
