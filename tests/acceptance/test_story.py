"""The main job, end to end, as its users meet it."""

import subprocess
import sys

import psutil

from clients.demo import artifacts
from tests.acceptance.stack import ROOT, Stack, clean_environment, eventually

MIB = 1 << 20


def tell(stack: Stack) -> subprocess.CompletedProcess[str]:
    environment = clean_environment() | {
        "TENANTRY_URL": stack.url,
        "TENANTRY_VAR": str(stack.var),
        "DEMO_LEARNING_S": "4",
    }
    return subprocess.run(
        [sys.executable, "-m", "clients.demo"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )


def test_the_demo_tells_its_story_twice(stack):
    first = tell(stack)
    assert first.returncode == 0, first.stdout + first.stderr
    second = tell(stack)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "from before" in second.stdout


def test_web_and_workers_never_load_what_loads_models(stack):
    processes = stack.processes("granian") + stack.processes("celery")
    assert len(processes) >= 4
    for process in processes:
        mapped = "".join(region.path for region in process.memory_maps())
        loaded = [name for name in ("sklearn", "torch", "onnxruntime", "pandas") if f"/{name}/" in mapped]
        assert not loaded, f"{process.cmdline()} has loaded {loaded}"


def test_a_web_process_stays_small(stack):
    """Its own memory and its part of what it shares: how much of a library's file is mapped is the kernel's choice."""
    for process in stack.processes("granian"):
        assert process.memory_full_info().pss < 130 * MIB


def test_nothing_listens_on_tcp_but_the_web_server(stack):
    processes = [psutil.Process(stack.process.pid), *stack.processes()]
    listening = set().union(*map(tcp_ports, processes))
    assert listening == {int(stack.url.rsplit(":", 1)[1])}


def tcp_ports(process):
    """The TCP ports on which a process listens; none for a confined runner, which shows its sockets to nobody."""
    try:
        connections = process.net_connections("inet")
    except psutil.AccessDenied:
        return set()
    return {connection.laddr.port for connection in connections if connection.status == psutil.CONN_LISTEN}


def test_commands_find_the_running_stack(stack):
    tenant = stack.tenant()
    listed = stack.manage("list_tenants")
    assert listed.returncode == 0, listed.stderr
    assert tenant.tenant_id in listed.stdout


def test_the_queue_lane_answers_as_the_direct_one(stack):
    tenant = stack.tenant()
    table = artifacts.breast_cancer()
    tenant.ensure_model("m", "")
    uploaded = tenant.upload("models/m/versions", {"m.pkl": artifacts.forest_pickle(table, 10)}, metadata={})
    assert tenant.inspected("m", uploaded["number"])["state"] == "ready"
    tenant.post(f"models/m/versions/{uploaded['number']}/activate")
    rows = {"instances": table.held.rows[:5], "probabilities": True}
    direct = tenant.post("models/m/predict", rows)
    accepted = tenant.post("models/m/predict", rows | {"async": True})
    later = tenant.get(f"predictions/{accepted['id']}", wait=30)
    assert later["state"] == "succeeded"
    assert later["answer"]["predictions"] == direct["predictions"]
    assert later["answer"]["probabilities"] == direct["probabilities"]


def test_a_killed_web_worker_and_model_host_are_replaced(stack):
    tenant = stack.tenant()
    table = artifacts.breast_cancer()
    tenant.ensure_model("m", "")
    uploaded = tenant.upload("models/m/versions", {"m.pkl": artifacts.forest_pickle(table, 10)}, metadata={})
    tenant.inspected("m", uploaded["number"])
    tenant.post(f"models/m/versions/{uploaded['number']}/activate")
    rows = {"instances": table.held.rows[:1]}
    expected = tenant.post("models/m/predict", rows)["predictions"]
    stack.kill("runtimes.host")
    answer = eventually(lambda: _predictions(tenant, rows), 30, "the model answers after its host was killed")
    assert answer == expected


def _predictions(tenant, rows):
    answer = tenant.session.post(f"{tenant.base_url}/api/v1/models/m/predict", json=rows, timeout=60)
    assert answer.status_code in (200, 503), answer.text
    if answer.status_code == 503:
        assert "Retry-After" in answer.headers
        return None
    return answer.json()["predictions"]


def test_what_holds_passwords_is_for_its_owner_alone(stack):
    for name in ("stack.env", "operator.json"):
        assert (stack.var / name).stat().st_mode & 0o777 == 0o600
