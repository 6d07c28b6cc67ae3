"""Where uploads wait: gone with their process, and swept where they are not."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from models_registry import execution, spooling
from models_registry.spooling import MEMORY_BYTES, SpooledUpload


@pytest.fixture
def folder(settings: Any, tmp_path: Path) -> Path:
    settings.FILE_UPLOAD_TEMP_DIR = str(tmp_path / "uploads")
    return tmp_path / "uploads"


def test_an_upload_on_the_disk_has_no_name(folder: Path) -> None:
    upload = SpooledUpload("a/model.pkl", None, None)
    upload.write(bytes(MEMORY_BYTES + 1))

    assert upload.file is not None
    assert upload.path == "a/model.pkl"
    assert list(folder.iterdir()) == []
    assert str(folder) in os.readlink(f"/proc/self/fd/{upload.file.fileno()}")  # noqa: PTH115 no path of a file
    upload.close()


def test_what_other_handlers_left_is_swept_after_a_day(folder: Path) -> None:
    folder.mkdir()
    old, young = folder / "tmpold.upload.pkl", folder / "tmpyoung.upload.pkl"
    for path in (old, young):
        path.touch()
    os.utime(old, (time.time() - 90_000,) * 2)

    assert spooling.sweep() == 1
    assert list(folder.iterdir()) == [young]


def test_a_tenant_that_cannot_be_swept_does_not_keep_the_others_from_it(
    acme: Any, globex: Any, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from models_registry.models import Blob
    from tenants.scope import current_tenant, tenant_scope
    from tests.models_registry.test_blobs import age

    for tenant in (acme, globex):
        tenant.storage_alias = "filesystem" if tenant is globex else "custom"
        with tenant_scope(tenant):
            store(a=b"1")
            age()
    monkeypatch.setattr("django.core.files.storage.FileSystemStorage.delete", lambda *args: 1 / 0)

    assert execution.sweep_storage() == 1
    with tenant_scope(globex):
        assert current_tenant() == globex
        assert not Blob.objects.exists()
