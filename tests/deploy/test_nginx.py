"""nginx: its file is accepted, predictions reach their own pool, and slow bodies reach no pool before their end."""

import http.client
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.deploy.files import ROOT

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
CONFIGURATION = ROOT / "deploy" / "nginx" / "nginx.conf"
needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")


class Pool(ThreadingHTTPServer):
    """A web pool that answers each request with its own name, and remembers when requests came."""

    daemon_threads = True

    def __init__(self, name: str) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.name = name
        self.headers: list[dict[str, str]] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Answer(BaseHTTPRequestHandler):
    """Answers with the pool's name and the length of the body."""

    server: Pool

    def do_POST(self) -> None:
        self.server.headers.append(dict(self.headers))
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer = f"{self.server.name} {len(body)}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None: ...


@dataclass
class Door:
    """A running nginx before two pools."""

    port: int
    web: Pool
    predict: Pool

    def post(self, path: str, body: bytes = b"") -> str:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)) as connection:
            connection.request("POST", path, body)
            return connection.getresponse().read().decode()


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """The project's nginx.conf, run with addresses of this machine in place of compose's names."""
    folder = tmp_path_factory.mktemp("nginx")
    web, predict, port = Pool("web"), Pool("predict"), free_port()
    text = CONFIGURATION.read_text()
    for old, new in (
        ("web-predict:8000", f"127.0.0.1:{predict.server_port}"),
        ("web:8000", f"127.0.0.1:{web.server_port}"),
        ("listen 8080", f"listen 127.0.0.1:{port}"),
        ("/dev/stdout", f"{folder}/access.log"),
    ):
        assert old in text
        text = text.replace(old, new)
    written = with_own_folders(folder, text)
    alone = "daemon off;" + ("user root;" if os.geteuid() == 0 else "")  # its folder is this user's
    process = subprocess.Popen([str(NGINX), "-c", str(written), "-e", "stderr", "-g", alone])
    try:
        await_port(port)
        yield Door(port, web, predict)
    finally:
        process.terminate()
        process.wait(10)
        web.shutdown()
        predict.shutdown()


@needs_nginx
def test_nginx_accepts_its_file(tmp_path: Path) -> None:
    copied = with_own_folders(tmp_path, CONFIGURATION.read_text())
    subprocess.run([str(NGINX), "-t", "-q", "-c", str(copied), "-e", "stderr"], check=True)


@needs_nginx
@pytest.mark.parametrize(
    "path", ["/t/acme/api/v1/predict", "/t/acme/api/v1/models/churn/predict", "/api/v1/models/a.b-c/predict?x=1"]
)
def test_predictions_have_a_pool_of_their_own(door: Door, path: str) -> None:
    assert door.post(path, b"{}") == "predict 2"


@needs_nginx
@pytest.mark.parametrize(
    "path",
    [
        "/t/acme/api/v1/models/churn/versions",
        "/t/acme/api/v1/models/predict",
        "/t/acme/api/v1/predictions/1",
        "/admin/login/",
        "/api/v1/tenants",
    ],
)
def test_everything_else_goes_to_the_other_pool(door: Door, path: str) -> None:
    assert door.post(path) == "web 0"


@needs_nginx
def test_a_slow_body_reaches_no_pool_before_its_end(door: Door) -> None:
    seen = len(door.web.headers)
    with socket.create_connection(("127.0.0.1", door.port), timeout=10) as slow:
        slow.sendall(
            b"POST /t/acme/api/v1/datasets HTTP/1.1\r\nHost: x\r\nContent-Length: 600000\r\n\r\n" + b"x" * 300_000
        )
        time.sleep(0.3)
        assert len(door.web.headers) == seen
        slow.sendall(b"x" * 300_000)
        assert b"web 600000" in receive_until(slow, b"web 600000")


@needs_nginx
def test_the_pools_learn_who_asked_and_how(door: Door) -> None:
    door.post("/admin/login/")
    headers = door.web.headers[-1]
    assert headers["Host"] == f"127.0.0.1:{door.port}"
    assert headers["X-Forwarded-For"] == "127.0.0.1"
    assert headers["X-Forwarded-Proto"] == "http"


def test_the_pools_are_services_of_compose() -> None:
    from tests.deploy.files import compose

    pools = set(re.findall(r"^\s+\S.* ([a-z-]+):8000;$", CONFIGURATION.read_text(), re.MULTILINE))
    assert pools == {"web", "web-predict"} == {name for name in compose()["services"] if name.startswith("web")}


def test_whatever_predicts_at_once_has_the_pool_for_predictions() -> None:
    from inference import api

    pattern = re.search(r'"~(\S+)" web-predict', CONFIGURATION.read_text())
    assert pattern
    for url in api.api_urlpatterns:
        path = "/t/acme/api/v1/" + re.sub(r"<\w+:\w+>", "name", str(url.pattern))
        assert bool(re.search(pattern[1], path)) == (url.callback is api.predict)


def with_own_folders(folder: Path, text: str) -> Path:
    """A file of this configuration whose folders for temporary files are here, so that any user may run it."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    folders = "".join(f"    {kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    written = folder / "nginx.conf"
    written.write_text(text.replace("http {\n", f"http {{\n{folders}", 1).replace("/tmp/nginx.pid", f"{folder}/pid"))
    return written


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def await_port(port: int) -> None:
    """Wait until somebody listens there."""
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < deadline, "nginx does not start"
            time.sleep(0.02)
        else:
            return


def receive_until(connection: socket.socket, end: bytes) -> bytes:
    data = b""
    while end not in data:
        received = connection.recv(65_536)
        assert received, data
        data += received
    return data
