"""The pages' own files, under names that tell their content."""

from typing import Any

from whitenoise.compress import Compressor
from whitenoise.storage import CompressedManifestStaticFilesStorage


class StaticFilesStorage(CompressedManifestStaticFilesStorage):  # type: ignore[misc]
    """Keeps each file with a gzipped twin.

    No Brotli, even where its library happens to be there: every first start would wait for it.
    """

    def create_compressor(self, **options: Any) -> Compressor:
        """What compresses the files."""
        return Compressor(use_brotli=False, **options)
