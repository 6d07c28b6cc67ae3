"""Everything that can go wrong for a reason the caller can act on, by kind. No Django here: runners import it too."""

from collections.abc import Mapping


class PlatformError(Exception):
    """An error with a stable code and a sentence that tells its reader what to do.

    Raise one of the kinds below, never this class: the kind decides the HTTP status (`common.http`).

    code: stable, snake_case; clients branch on it.
    fields: what was wrong, by the path of the field in the request body.
    retry_after_s: seconds after which the same request may succeed, where waiting helps.
    """

    code = "error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        fields: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.code
        self.fields = dict(fields or {})
        self.retry_after_s = retry_after_s


class Malformed(PlatformError):
    """The request cannot be read, or can be read in two ways."""

    code = "malformed"


class Unauthenticated(PlatformError):
    """Nobody known is asking."""

    code = "unauthenticated"


class Denied(PlatformError):
    """Somebody known is asking for what they may not do."""

    code = "denied"


class NotFound(PlatformError):
    """No such thing, or another tenant's."""

    code = "not_found"


class Conflict(PlatformError):
    """The request is sound, but not in the present state of its object."""

    code = "conflict"


class TooLarge(PlatformError):
    """The body is larger than this tenant or this path takes."""

    code = "too_large"


class UnsupportedMedia(PlatformError):
    """The body is in a form that this path does not read."""

    code = "unsupported_media_type"


class Invalid(PlatformError):
    """The request can be read, and what it says cannot be done by anybody."""

    code = "invalid_parameter"


class Throttled(PlatformError):
    """A limit of the tenant is reached; the same request may succeed later."""

    code = "throttled"


class Unavailable(PlatformError):
    """A part of the platform is away; the same request may succeed later."""

    code = "unavailable"


class TimedOut(PlatformError):
    """The deadline of the request passed before its answer was there."""

    code = "deadline_exceeded"
