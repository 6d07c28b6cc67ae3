"""What loading an artifact said, worth showing to its uploader."""

from __future__ import annotations

import warnings

from runtimes.errors import plain

MAX_NOTICES = 20


def notices(caught: list[warnings.WarningMessage]) -> list[str]:
    """The warnings' texts, each once; deprecations are the library's business and left out."""
    told = [plain(warning.message) for warning in caught if not issubclass(warning.category, DeprecationWarning)]
    return list(dict.fromkeys(told))[:MAX_NOTICES]
