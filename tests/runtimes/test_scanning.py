"""The scanner's report: what it finds, and that nothing about it decides anything."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import zlib
from collections.abc import Callable

import joblib
import pytest
from sklearn.linear_model import LogisticRegression

from runtimes import scanning
from runtimes.bundle import Bundle
from runtimes.client import HostClient
from tests.runtimes.bundles import inspected
from tests.runtimes.conftest import bundle_of
from tests.runtimes.payloads import Call
from tests.runtimes.test_folders import zipped

HOSTILE = pickle.dumps(Call(print, "x")).replace(b"print", b"eval\x94"[:5])
SHELL = b"cos\nsystem\n(S'id'\ntR."


def found(files: dict[str, bytes]) -> list[str]:
    report = scanning.scan(Bundle(bundle_of(files)))
    assert report["scanner"].startswith("picklescan ")
    findings: list[str] = report["findings"]
    return findings


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zlib.compress, bz2.compress, lzma.compress])
def test_a_call_that_harms_is_told_whatever_it_is_packed_in(pack: Callable[[bytes], bytes]) -> None:
    assert found({"model.pkl": pack(SHELL)}) == ["model.pkl imports os.system, which the scanner calls dangerous."]


def test_a_pickle_in_an_archive_is_found() -> None:
    assert any("os.system" in finding for finding in found({"model.pth": zipped({"x/data.pkl": SHELL})}))


def test_an_ordinary_model_gives_no_finding(classifier: LogisticRegression) -> None:
    compressed = io.BytesIO()
    joblib.dump(classifier, compressed, compress=3)
    files = {"a.pkl": pickle.dumps(classifier), "b.pkl": compressed.getvalue(), "README": b"call me\n"}

    assert found(files) == []


def test_a_report_is_bounded() -> None:
    names = b"".join(b"cos\nsystem%d\n0" % number for number in range(500))

    assert len(found({"model.pkl": names + b"N."})) == scanning.MAX_FINDINGS + 1


def test_what_is_too_large_is_said_to_be_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning, "MAX_FILE_BYTES", 1000)
    findings = found({"a.pkl": SHELL + bytes(1000), "b.pkl": zlib.compress(SHELL + bytes(5000))})

    assert findings == ["a.pkl is too large for the scanner.", "b.pkl holds too much for the scanner."]


def test_the_report_comes_with_the_inspection_and_decides_nothing(client: HostClient) -> None:
    source = b"class Model:\n    n_features_in_ = 1\n    predict = staticmethod(lambda rows: rows[:, 0])\n"
    pickled = b"(" + SHELL[:-1].replace(b"system\n(S'id'\ntR", b"getenv\n0") + b"cauthor\nModel\n)\x81."
    inspection = inspected(client, {"model.pkl": pickled, "author.py": source})

    assert inspection.type_name == "Model"
    assert inspection.scan["findings"] == ["model.pkl imports os.getenv, which the scanner calls dangerous."]
