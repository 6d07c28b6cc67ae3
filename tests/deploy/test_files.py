"""Compose, Heroku, the Procfile and the settings say the same."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from kombu import Queue

from inference.queued import queues
from tenantry.celery import INFERENCE, app
from tests.deploy import files
from tests.deploy.files import ROOT

COMPOSE_ONLY = {"POSTGRES_PASSWORD", "VALKEY_PASSWORD", "RABBITMQ_PASSWORD", "MODEL_HOST_MEMORY"}
COMPOSE_ONLY |= {"PREDICT_WORKERS", "PREDICT_THREADS"}  # compose's names for WEB_WORKERS and WEB_THREADS of one pool
WORKERS = {"worker-inference", "worker-batch", "worker-training", "worker-default"}


def queues_of(name: str) -> set[str]:
    """The queues that a process consumes by its line of the Procfile."""
    found = re.search(r"--queues (\S+)", files.procfile().get(name, ""))
    named = set(found[1].split(",")) if found else set()
    return named | (set(queues.names()) if INFERENCE in named else set())


def has_docker_compose() -> bool:
    """Whether `docker compose` can read a file here; that needs no engine."""
    if not shutil.which("docker"):
        return False
    return subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0


def test_every_command_of_compose_and_heroku_is_a_line_of_the_procfile() -> None:
    commands = files.compose_commands()
    assert commands.pop("release") == "sh -c python manage.py upgrade && python manage.py ensure_operator"
    assert commands.pop("library-sets") == "list"
    for name, command in [*commands.items(), *files.heroku_commands().items()]:
        beside = r"(deploy/with-model-host )?" if name in WORKERS else ""
        process = "web" if name == "web-predict" else name
        assert re.fullmatch(rf"{beside}deploy/run {process}", command), name


def test_every_process_of_the_procfile_runs_everywhere() -> None:
    assert files.compose_commands().keys() - {"release", "web-predict", "library-sets"} == files.procfile().keys()
    assert files.heroku_commands().keys() == files.procfile().keys() - {"model-host"}


def test_every_queue_of_the_settings_is_consumed_everywhere() -> None:
    settled: list[Queue] = app.conf.task_queues
    for commands in (files.procfile(), files.compose_commands(), files.heroku_commands()):
        assert set.union(*map(queues_of, commands)) == {queue.name for queue in settled}


def test_each_heroku_worker_brings_its_own_model_host_and_the_web_dyno_has_none() -> None:
    for name, command in files.heroku_commands().items():
        assert ("with-model-host" in command) == (name in WORKERS)
    assert "TENANTRY_MODELS_SOCKET" not in files.heroku()["setup"]["config"]
    assert files.heroku()["release"]["command"] == ["python manage.py upgrade"]


def test_every_setting_that_is_read_is_documented_and_the_reverse() -> None:
    assert files.documented() == files.read_by_code() | COMPOSE_ONLY


def test_compose_asks_for_documented_variables_alone() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    assert files.interpolated(text) <= files.documented()


def test_what_compose_and_heroku_set_is_read() -> None:
    services = files.compose()["services"].values()
    own = [service for service in services if service["image"] == "tenantry"]
    by_compose = {name for service in own for name in service.get("environment", {})}
    assert by_compose <= files.read_by_code()
    assert files.heroku()["setup"]["config"].keys() <= files.read_by_code()
    in_image = re.findall(r"^(?:ENV)?\s+([A-Z_]+)=", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert {
        name for name in in_image if name.startswith(("TENANTRY_", "STATIC_", "WEB_", "PORT"))
    } <= files.read_by_code()


def test_the_model_host_is_given_nothing_to_lose() -> None:
    host = files.compose()["services"]["model-host"]
    assert host["network_mode"] == "none"
    assert host["cap_drop"] == ["ALL"]
    assert host["security_opt"] == ["no-new-privileges:true"]
    assert host["read_only"] is True
    assert "env_file" not in host
    assert host["environment"].keys() == {"TENANTRY_MODELS_SOCKET", "MODEL_MEMORY_BYTES", "TENANTRY_RUN_UNCONFINED"}
    assert host["volumes"] == ["sockets:/run/tenantry", "library-sets:/var/lib/tenantry/library-sets:ro"]


def test_whoever_predicts_shares_the_model_hosts_sockets() -> None:
    services = files.compose()["services"]
    socket = services["model-host"]["environment"]["TENANTRY_MODELS_SOCKET"]
    for name in ("web", "web-predict", *WORKERS):
        assert services[name]["environment"]["TENANTRY_MODELS_SOCKET"] == socket
        assert "sockets:/run/tenantry" in services[name]["volumes"]


def test_no_password_has_a_default() -> None:
    for text in ((ROOT / "docker-compose.yml").read_text(), (ROOT / "heroku.yml").read_text()):
        assert not re.search(r"(PASSWORD|SECRET\w*):-?\w", text)
        for name, default in re.findall(r"\$\{(\w*(?:PASSWORD|SECRET)\w*):?([-?][^}]*)\}", text):
            assert default.startswith("?") or default == "-", name


def test_the_image_takes_in_no_secret_and_no_data() -> None:
    kept = (ROOT / ".dockerignore").read_text().split()
    assert kept[kept.index("*")] == "*"
    assert not {"!.env", "!var/", "!.git/", "!tests/"} & set(kept)
    assert re.search(r"^USER 10001:10001$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)


def test_compose_accepts_its_file(tmp_path: Path) -> None:
    if not has_docker_compose():
        pytest.skip("`docker compose` is not installed")
    shutil.copy(ROOT / "docker-compose.yml", tmp_path)
    needed = ("SECRET_KEY", "POSTGRES_PASSWORD", "VALKEY_PASSWORD", "AWS_SECRET_ACCESS_KEY")
    (tmp_path / ".env").write_text("".join(f"{name}=x\n" for name in needed))
    subprocess.run(["docker", "compose", "config", "--quiet"], cwd=tmp_path, check=True)
