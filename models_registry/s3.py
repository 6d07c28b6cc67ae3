"""S3 through django-storages, made to stream. Apart from the other storages, so that only its users load boto3."""

import logging
from typing import Any

from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError
from django.core.files import File
from django.utils.deconstruct import deconstructible
from storages.backends.s3 import S3Storage as UnstreamedS3Storage
from storages.utils import clean_name

log = logging.getLogger(__name__)

PART_BYTES = 8 << 20
PARTS_AT_ONCE = 4


@deconstructible(path="models_registry.s3.S3Storage")
class S3Storage(UnstreamedS3Storage):  # type: ignore[misc]
    """django-storages' S3Storage with bounded memory: it would fetch a whole object before its first byte is read."""

    def get_default_settings(self) -> dict[str, Any]:
        transfer = TransferConfig(
            multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES, max_concurrency=PARTS_AT_ONCE
        )
        transfer.max_in_memory_upload_chunks = PARTS_AT_ONCE  # boto3 hides this one of s3transfer's; its default is 10
        settings: dict[str, Any] = super().get_default_settings()
        return settings | {"transfer_config": transfer}

    def _open(self, name: str, mode: str = "rb") -> File:  # type: ignore[type-arg]
        if mode != "rb":
            raise ValueError("files here are written whole, by `save`")
        try:
            return File(self._object(name).get()["Body"], name)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                raise FileNotFoundError(name) from error
            raise

    def delete(self, name: str) -> None:
        """Remove a file, or the parts that a killed process left of one; again is no error."""
        super().delete(name)
        self._abort_uploads(self._object(name).key)

    def delete_prefix(self, tenant_id: str) -> None:
        """Remove everything of a tenant, a thousand objects a request; again is no error.

        Raises:
            OSError: S3 kept some of it.
        """
        prefix = self._object(tenant_id).key + "/"
        for answer in self.bucket.objects.filter(Prefix=prefix).delete():
            if errors := answer.get("Errors"):
                raise OSError(f"S3 keeps {len(errors)} objects, the first for the reason {errors[0].get('Code')}")
        self._abort_uploads(prefix)

    def _object(self, name: str) -> Any:
        return self.bucket.Object(self._normalize_name(clean_name(name)))

    def _abort_uploads(self, prefix: str) -> None:
        """Free the parts of uploads that were never completed: nobody sees them, and they are paid for.

        A server or a policy that does not allow it costs room, and must not keep files from being deleted.
        """
        try:
            for upload in self.bucket.multipart_uploads.filter(Prefix=prefix):
                if upload.object_key.startswith(prefix):
                    upload.abort()
        except ClientError:
            log.warning("uploads_not_aborted", extra={"prefix": prefix}, exc_info=True)
