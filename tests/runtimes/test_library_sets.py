"""Declared library sets: built from a requirements file, named by a version, suggested where the default set fails."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from runtimes import library_sets
from runtimes.client import HostClient
from runtimes.errors import ArtifactRejected, HostUnavailable
from runtimes.libraries import LibrarySets, advice, minor, suiting
from runtimes.zygotes import Zygotes
from tests.runtimes import attacks, declared, hosts
from tests.runtimes.conftest import Load, bundle_of
from tests.runtimes.payloads import running

ROWS = np.array([[0.0, 1, 2, 3], [76, 77, 78, 79]])
HELD = {"sklearn": {"scikit-learn": "1.9.1"}, "old": {"scikit-learn": "1.2.1"}, "older": {"scikit-learn": "1.2.2"}}


@pytest.fixture(scope="module")
def sets() -> Path:
    return declared.folder()


@pytest.fixture(scope="module")
def own_host(sets: Path) -> Iterator[HostClient]:
    with tempfile.TemporaryDirectory(prefix="tnt") as name:
        started = hosts.start(Path(name), "--library-sets", str(sets))
        with hosts.ended(started) as client:
            yield client


@pytest.fixture(scope="module")
def ordinary_host(sets: Path) -> Iterator[HostClient]:
    """A host of an ordinary user, over a copy of the set that is that user's own."""
    if not hosts.can_open_namespaces():
        pytest.skip("needs root, to become an ordinary user with the interpreter in reach")
    with tempfile.TemporaryDirectory(prefix="tnt") as name:
        started = hosts.start_in_the_open(Path(name), "--library-sets", str(sets))
        with hosts.ended(started) as client:
            yield client


@pytest.fixture(params=["own_host", "ordinary_host"])
def host(request: pytest.FixtureRequest) -> HostClient:
    client: HostClient = request.getfixturevalue(request.param)
    return client


@pytest.fixture(scope="module")
def old_forest(sets: Path) -> bytes:
    return declared.made_by_the_old(sets, "forest")


def inspect(client: HostClient, artifact: bytes, **metadata: Any) -> Any:
    fd = bundle_of(artifact)
    try:
        return client.inspect(fd, tenant="acme", metadata=metadata)
    finally:
        os.close(fd)


def rejection(client: HostClient, artifact: bytes, **metadata: Any) -> ArtifactRejected:
    with pytest.raises(ArtifactRejected) as caught:
        inspect(client, artifact, **metadata)
    return caught.value


def test_a_forest_of_an_older_version_predicts_in_the_set_it_names(
    host: HostClient, old_forest: bytes, load_request: Load
) -> None:
    found = inspect(host, old_forest, library_set=declared.NAME)
    loader = load_request(old_forest, signature=found.signature.to_json(), library_set=declared.NAME)

    prediction = host.runner("old forest", loader).predict(ROWS, deadline_s=10, probabilities=True)

    assert found.libraries["scikit-learn"] == found.made_with["scikit-learn"] == declared.OLD_VERSION
    assert prediction.outputs["prediction"].tolist() == [0, 1]
    assert prediction.probabilities is not None


def test_the_default_set_rejects_it_and_names_the_set_that_would_do(host: HostClient, old_forest: bytes) -> None:
    rejected = rejection(host, old_forest)

    assert rejected.code == "unreadable_artifact"
    assert rejected.reason.startswith("The artifact was made with scikit-learn 1.2.2, which 1.9")
    assert f'Send it with "library_set": "{declared.NAME}".' in rejected.reason


def test_without_such_a_set_the_sentence_says_how_to_add_one(client: HostClient, old_forest: bytes) -> None:
    reason = rejection(client, old_forest).reason

    assert "No library set here has that version; the operator adds one as docs/library-sets.md says." in reason


def test_an_older_version_that_loads_is_a_warning(own_host: HostClient, sets: Path) -> None:
    found = inspect(own_host, declared.made_by_the_old(sets, "logistic"))

    assert found.made_with == {"scikit-learn": declared.OLD_VERSION}
    assert any(declared.NAME in warning for warning in found.warnings)


def test_a_model_of_the_default_set_is_served_with_no_advice(own_host: HostClient, classifier: Any) -> None:
    assert not inspect(own_host, pickle.dumps(classifier)).warnings


@pytest.mark.parametrize("compression", ["zlib", "gzip", "bz2", "xz", "lzma"])
def test_the_version_is_found_in_a_compressed_file(own_host: HostClient, folder: Path, compression: str) -> None:
    path = folder / "model.joblib"
    joblib.dump(LogisticRegression().fit(ROWS, [0, 1]), path, compress=(compression, 3))

    assert inspect(own_host, path.read_bytes()).made_with["scikit-learn"].startswith("1.9")


@pytest.mark.parametrize("name", ["nobody", "../etc", "wheels", "x" * 100, "a\nb"])
def test_an_unknown_set_is_rejected_with_those_that_are_there(own_host: HostClient, classifier: Any, name: str) -> None:
    rejected = rejection(own_host, pickle.dumps(classifier), library_set=name)

    assert rejected.code == "unknown_library_set"
    assert f"only: sklearn, torch, {declared.NAME}." in rejected.reason


def test_a_format_that_the_set_lacks_is_rejected(own_host: HostClient) -> None:
    graph = pytest.importorskip("onnx").helper.make_model(
        pytest.importorskip("onnx").helper.make_graph([], "empty", [], []), producer_name="x"
    )

    rejected = rejection(own_host, graph.SerializeToString(), library_set=declared.NAME)

    assert (rejected.code, "onnx" in rejected.reason) == ("library_set_lacks", True)


def test_a_runner_of_a_declared_set_is_confined(host: HostClient, sets: Path) -> None:
    assert host.check(declared.NAME)["scikit-learn"] == declared.OLD_VERSION
    paths = ["/etc/passwd", hosts.ROOT / "pyproject.toml", sets / declared.NAME / "set.json", joblib.__file__]
    codes = [f"result = open({str(path)!r}).read()" for path in paths]
    codes += ["socket.socket()", "os.fork()", "os.kill(os.getppid(), 9)"]
    for code in [*codes, attacks.KERNEL["use io_uring"], attacks.PROCESSES["exec"].format(open_folder="/tmp")]:
        assert rejection(host, running(code), library_set=declared.NAME).code == "confinement_violation", code


def test_a_killed_zygote_of_a_set_is_started_again(own_host: HostClient, old_forest: bytes) -> None:
    inspect(own_host, old_forest, library_set=declared.NAME)
    zygote = own_host.stats().zygotes[declared.NAME]

    os.kill(zygote, signal.SIGKILL)

    assert inspect(own_host, old_forest, library_set=declared.NAME)
    assert own_host.stats().zygotes[declared.NAME] != zygote


def test_stats_tell_the_sets_of_the_machine(own_host: HostClient) -> None:
    assert own_host.stats().library_sets[declared.NAME]["scikit-learn"] == declared.OLD_VERSION


def test_an_idle_zygote_is_ended_and_the_platforms_own_stay(sets: Path) -> None:
    zygotes = Zygotes(LibrarySets(sets))
    try:
        process = zygotes.get(declared.NAME).process
        zygotes.end_idle(60)
        assert declared.NAME in zygotes.running()

        zygotes.end_idle(0)

        assert zygotes.running() == {}
        assert process.poll() is not None
    finally:
        zygotes.close()


def test_a_set_that_is_built_anew_gets_a_new_zygote(sets: Path, folder: Path) -> None:
    manifest = folder / declared.NAME / "set.json"
    manifest.parent.mkdir()
    shutil.copy(sets / declared.NAME / "set.json", manifest)
    (manifest.parent / "venv").symlink_to(sets / declared.NAME / "venv")
    zygotes = Zygotes(LibrarySets(folder))
    try:
        first = zygotes.get(declared.NAME)
        assert zygotes.get(declared.NAME) is first

        os.utime(manifest)

        assert zygotes.get(declared.NAME) is not first
        assert not first.is_alive()
    finally:
        zygotes.close()


def declare(folder: Path, name: str = "broken") -> Path:
    place = folder / name
    place.mkdir()
    (place / "set.json").write_text(json.dumps({"scikit-learn": "1.0"}))
    return place


def test_a_set_without_an_interpreter_is_unavailable_and_not_tried_at_once_again(folder: Path) -> None:
    place = declare(folder)
    zygotes = Zygotes(LibrarySets(folder))
    with pytest.raises(HostUnavailable, match="has no interpreter that starts"):
        zygotes.get("broken")
    (place / "venv" / "bin").mkdir(parents=True)
    (place / "venv" / "bin" / "python").symlink_to("/bin/true")

    with pytest.raises(HostUnavailable, match="has no interpreter that starts"):
        zygotes.get("broken")


@pytest.mark.parametrize("part", [".", "broken", "broken/set.json"])
def test_a_set_that_others_may_write_to_does_not_count(folder: Path, part: str) -> None:
    declare(folder)
    assert LibrarySets(folder).find("broken") is not None

    (folder / part).chmod(0o777)

    assert LibrarySets(folder).find("broken") is None


def test_the_nearest_version_is_suggested() -> None:
    assert suiting({"scikit-learn": "1.2.2"}, HELD["sklearn"], HELD) == "older"
    assert suiting({"scikit-learn": "1.2.0"}, HELD["sklearn"], HELD) == "old"
    assert suiting({"scikit-learn": "1.9.0"}, HELD["sklearn"], HELD) is None
    assert suiting({"scikit-learn": "1.9.0"}, HELD["old"], HELD) == "sklearn"
    assert suiting({}, HELD["sklearn"], HELD) is None


@pytest.mark.parametrize("claimed", ["1", "one", "", "1.2\n", "9" * 99, "1.2 <b>"])
def test_what_is_no_version_gives_no_advice(claimed: str) -> None:
    assert minor(claimed) is None
    assert advice({"scikit-learn": claimed}, HELD["sklearn"], HELD) is None


def run(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str) -> tuple[int, str]:
    status = library_sets.main(["--folder", str(folder), *arguments])
    return status, "".join(capsys.readouterr())


def test_the_command_lists_and_removes(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    declare(folder, "a-set")
    assert run(capsys, folder, "list") == (0, "a-set: scikit-learn 1.0\n")
    assert run(capsys, folder, "remove", "a-set") == (0, "")
    assert run(capsys, folder, "remove", "a-set")[0] == 1
    assert "There is no library set in" in run(capsys, folder, "list")[1]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["../x", "/dev/null"], "is no name for a library set"),
        (["sklearn", "/dev/null"], "is no name for a library set"),
        (["fine", "/nowhere.txt"], "There is no requirements file"),
        (["fine", "{file}", "--wheels", "/nowhere"], "There is no folder of wheels"),
        (["fine", "{file}", "--python", "/bin/false"], "is no Python"),
        (["fine", "{file}", "--python", "/nowhere"], "is no Python"),
    ],
)
def test_a_mistake_of_the_operator_is_told_and_leaves_nothing(
    capsys: pytest.CaptureFixture[str], folder: Path, arguments: list[str], told: str
) -> None:
    file = folder / "requirements.txt"
    file.write_text("numpy\n")

    status, text = run(capsys, folder / "sets", "build", *(each.format(file=file) for each in arguments))

    assert (status, told in text) == (1, True)
    assert not (folder / "sets").exists() or list((folder / "sets").iterdir()) == []


def test_wheels_that_no_index_has_come_from_a_folder(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    """What pip cannot find stops the build, and the older set of that name stays."""
    declare(folder, "special")
    file = folder / "requirements.txt"
    file.write_text("tenantry-has-no-such-library==1.0\n")
    (folder / "wheels").mkdir()

    status, text = run(capsys, folder, "build", "special", str(file))

    assert (status, "pip could not install the libraries" in text) == (1, True)
    assert LibrarySets(folder).find("special") is not None
    assert sorted(path.name for path in folder.iterdir()) == ["requirements.txt", "special", "wheels"]
