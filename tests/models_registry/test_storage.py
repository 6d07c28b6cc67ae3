"""What every storage promises, tried on a folder, on PostgreSQL and on SeaweedFS's S3."""

import io
import os
import random
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
from django.core.files import File
from django.core.files.storage import storages
from django.db import DatabaseError

from tenants import provisioning

pytestmark = pytest.mark.django_db
MIB = 1 << 20


@pytest.fixture
def storage(tenant: Any, alias: str) -> Any:
    return storages[alias]


def noise(size_bytes: int) -> bytes:
    return random.Random(7).randbytes(size_bytes)


def write_and_close(descriptor: int, content: bytes) -> None:
    with os.fdopen(descriptor, "wb") as out:
        out.write(content)


@pytest.mark.parametrize("size_bytes", [0, 1, MIB, 9 * MIB + 1])
def test_a_file_comes_back_as_it_was_saved(storage: Any, tenant: Any, size_bytes: int) -> None:
    content = noise(size_bytes)

    name = storage.save(f"{tenant.tenant_id}/aa/{size_bytes}", File(io.BytesIO(content)))

    assert name == f"{tenant.tenant_id}/aa/{size_bytes}"
    assert storage.size(name) == size_bytes
    assert storage.open(name).read() == content


def test_a_source_that_cannot_seek_is_saved(storage: Any, tenant: Any) -> None:
    content = noise(10 * MIB)
    read_end, write_end = os.pipe()
    writer = threading.Thread(target=write_and_close, args=(write_end, content))
    writer.start()

    with os.fdopen(read_end, "rb") as pipe:
        name = storage.save(f"{tenant.tenant_id}/aa/pipe", File(pipe))

    writer.join()
    assert storage.open(name).read() == content


def test_a_file_is_read_in_small_pieces_from_its_start(storage: Any, tenant: Any) -> None:
    name = storage.save(f"{tenant.tenant_id}/aa/pieces", File(io.BytesIO(b"0123456789")))

    with storage.open(name) as file:
        assert [file.read(4), file.read(4), file.read(4), file.read(4)] == [b"0123", b"4567", b"89", b""]


def test_a_deleted_file_is_gone_and_deleting_it_again_is_no_error(storage: Any, tenant: Any) -> None:
    name = storage.save(f"{tenant.tenant_id}/aa/gone", File(io.BytesIO(b"x")))

    storage.delete(name)
    storage.delete(name)

    assert not storage.exists(name)
    with pytest.raises(FileNotFoundError):
        storage.open(name)


def test_a_failed_save_leaves_no_file(storage: Any, tenant: Any) -> None:
    class Breaks(io.RawIOBase):
        left = 3

        def read(self, size: int = -1) -> bytes:
            self.left -= 1
            if self.left < 0:
                raise ValueError("the source broke")
            return bytes(size)

    name = f"{tenant.tenant_id}/aa/broken"

    with pytest.raises((ValueError, DatabaseError), match="the source broke"):
        storage.save(name, File(Breaks()))  # type: ignore[arg-type]
    storage.delete(name)

    assert not storage.exists(name)


def test_deleting_a_tenants_files_leaves_the_others(storage: Any, tenant: Any, alias: str) -> None:
    if alias == "database":
        pytest.skip("a tenant's rows go with its schema")
    ours = storage.save(f"{tenant.tenant_id}/aa/ours", File(io.BytesIO(b"x")))
    theirs = storage.save(f"{tenant.tenant_id}-two/aa/theirs", File(io.BytesIO(b"x")))

    provisioning.delete_files(tenant)
    provisioning.delete_files(tenant)

    assert not storage.exists(ours)
    assert storage.exists(theirs)
    storage.delete(theirs)


class TestFolder:
    """What only the folder does."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Any:
        from models_registry.storage import FolderStorage

        return FolderStorage(str(tmp_path / "models"))

    def test_nobody_else_may_read_it(self, folder: Any, tmp_path: Path) -> None:
        folder.save("acme/aa/file", File(io.BytesIO(b"x")))

        modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "models").rglob("*") if path.is_dir()}
        assert modes == {0o700}
        assert stat.S_IMODE((tmp_path / "models/acme/aa/file").stat().st_mode) == 0o600

    def test_a_file_shows_only_when_it_is_whole(self, folder: Any, tmp_path: Path) -> None:
        seen = []

        class Watched(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                seen.append((tmp_path / "models/acme/aa/file").exists())
                return super().read(size)

        folder.save("acme/aa/file", File(Watched(bytes(3 * MIB))))

        assert seen
        assert not any(seen)

    def test_delete_removes_what_a_killed_process_left(self, folder: Any, tmp_path: Path) -> None:
        left = tmp_path / "models/acme/aa/file.part"
        left.parent.mkdir(parents=True)
        left.write_bytes(b"half")

        folder.delete("acme/aa/file")

        assert not left.exists()


def test_s3_frees_the_parts_of_an_upload_that_was_never_completed(s3: Any) -> None:
    upload = s3.bucket.Object("acme/aa/half").initiate_multipart_upload()
    upload.Part(1).upload(Body=bytes(5 * MIB))

    s3.delete("acme/aa/half")

    assert not list(s3.bucket.multipart_uploads.filter(Prefix="acme/aa/half"))
