"""The same answer for a request that is sent twice under one Idempotency-Key.

A view whose POST creates takes `Idempotent` first among its bases; a plain view calls `begin`, `keep` and `forget`.

What is promised: the same caller, path, key and body get the status, body and Location of the first answer for a day,
and nothing is done a second time. Answers that say "later" (429, 5xx) are not kept. A process that dies after its
transaction and before its answer is kept leaves the key in progress; TAKEN_OVER_AFTER later the request is tried again,
and then it is the names and constraints of what it creates that keep it from being there twice.
"""

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any, ClassVar

from django.core.files.uploadedfile import UploadedFile
from django.db import DatabaseError, IntegrityError, transaction
from django.db.models import Q
from django.http import HttpResponseBase, QueryDict
from django.utils import timezone
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from common.errors import Conflict, Invalid
from tenants.authentication import caller_of
from tenants.journal.models import KeptAnswer
from tenants.models import Tenant
from tenants.scope import tenant_scope

log = logging.getLogger(__name__)

KEPT_FOR = timedelta(hours=24)
TAKEN_OVER_AFTER = timedelta(minutes=5)  # longer than any request may take
KEY = re.compile(r"[\x21-\x7e]{1,200}")
TRY_AGAIN = frozenset([408, 425, 429])
READ_BYTES = 1 << 20


class Idempotent(APIView):
    """A DRF view that honours `Idempotency-Key` on POST. Put it first among the bases.

    secret_fields: fields of the answer that are shown once and never written down; the repeated answer lacks them.
    """

    secret_fields: ClassVar[tuple[str, ...]] = ()

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        key = request.headers.get("Idempotency-Key")
        if request.method == "POST" and key is not None:
            # Where `dispatch` looks for it: on this request's own view object, before the class.
            vars(self)["post"] = partial(self._once, key, getattr(self, "post", self.http_method_not_allowed))

    def _once(self, key: str, handler: Callable[..., Any], request: Request, *args: Any, **kwargs: Any) -> Any:
        path = request.get_full_path_info()
        attempt = begin(key=key, caller=caller_of(request).identity, path=path, fingerprint=fingerprint(request.data))
        if attempt.status is not None:
            return _repeated(attempt)
        try:
            response = self._answer(handler, request, *args, **kwargs)
        except BaseException:
            forget(attempt)
            raise
        if isinstance(response, Response):
            keep(attempt, response.status_code, self._storable(response.data), response.get("Location", ""))
        else:
            forget(attempt)
        return response

    def _answer(self, handler: Callable[..., Any], request: Request, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """The handler's answer, an error that it raised for its caller included; bugs go on."""
        try:
            answer: HttpResponseBase = handler(request, *args, **kwargs)
        except Exception as error:
            return self.handle_exception(error)
        return answer

    def _storable(self, data: Any) -> Any:
        plain = json.loads(JSONRenderer().render(data) or "null")
        if isinstance(plain, dict):
            return {name: value for name, value in plain.items() if name not in self.secret_fields}
        return plain


def fingerprint(data: Any) -> str:
    """Digest of a parsed body.

    Made of its fields and its files' contents, so that neither a multipart boundary nor the order of a JSON object
    makes another request of it.
    """
    digest = hashlib.sha256()
    for name, value in sorted(_parts(data), key=lambda part: part[0]):
        digest.update(json.dumps(name).encode())
        if isinstance(value, UploadedFile):
            digest.update(json.dumps([value.name, value.size]).encode())
            _read_into(digest.update, value)
        else:
            digest.update(json.dumps(value, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def begin(*, key: str, caller: str, path: str, fingerprint: str) -> KeptAnswer:
    """The kept answer of an earlier request, or (with `status` None) leave to make the first one.

    Who gets leave ends it with `keep` or `forget`.

    Raises:
        Invalid: the key is not one, or came with another body before.
        Conflict: the first request is still being worked on.
    """
    if not KEY.fullmatch(key):
        raise Invalid("An Idempotency-Key is 1 to 200 visible ASCII characters.", fields={"Idempotency-Key": key[:60]})
    if len(path) > 500:
        path = f"sha256:{hashlib.sha256(path.encode()).hexdigest()}"
    try:
        with transaction.atomic():
            return KeptAnswer.objects.create(key=key, caller=caller, path=path, fingerprint=fingerprint)
    except IntegrityError:
        return _known(key, caller, path, fingerprint)


def keep(attempt: KeptAnswer, status: int, body: Any, location: str = "") -> None:
    """Keep the answer of the first request, unless it says "later" or another request took the key over."""
    if status >= 500 or status in TRY_AGAIN:
        forget(attempt)
        return
    _still_ours(attempt).update(status=status, body=body, location=location)


def forget(attempt: KeptAnswer) -> None:
    """Free the key: its request was not answered."""
    _still_ours(attempt).delete()


def sweep() -> int:
    """Delete the answers of all tenants that need not be kept any more; how many there were."""
    deleted = 0
    for tenant in Tenant.objects.filter(state="active").iterator():
        try:
            with tenant_scope(tenant), transaction.atomic():
                deleted += KeptAnswer.objects.filter(created_at__lt=timezone.now() - KEPT_FOR).delete()[0]
        except (
            DatabaseError
        ):  # such as a schema that waits for its upgrade: the tenants after it are swept all the same
            log.exception("answers_not_swept", extra={"tenant": tenant.tenant_id})
    return deleted


def _known(key: str, caller: str, path: str, fingerprint: str) -> KeptAnswer:
    """What there is under a key that was seen before: its answer, or leave to try again where it is stale."""
    found = KeptAnswer.objects.filter(key=key, caller=caller, path=path).first()
    if found is None:  # its request failed and freed the key just now
        return begin(key=key, caller=caller, path=path, fingerprint=fingerprint)
    if _take_over(found, fingerprint):
        return found
    if found.fingerprint != fingerprint:
        raise Invalid(
            "This Idempotency-Key came with another body before; use a new key for a new request.",
            code="idempotency_key_reused",
        )
    if found.status is None:
        raise Conflict(
            "The first request with this Idempotency-Key is still being worked on.",
            code="request_in_progress",
            retry_after_s=1,
        )
    return found


def _take_over(found: KeptAnswer, fingerprint: str) -> bool:
    """Whether the key was stale and is the caller's now. `created_at` changes hands with it, which fences the first."""
    now = timezone.now()
    crashed = Q(status=None, created_at__lt=now - TAKEN_OVER_AFTER, fingerprint=fingerprint)
    stale = KeptAnswer.objects.filter(
        crashed | Q(created_at__lt=now - KEPT_FOR), pk=found.pk, created_at=found.created_at
    )
    if not stale.update(created_at=now, status=None, body=None, location="", fingerprint=fingerprint):
        return False
    found.created_at, found.status = now, None
    return True


def _still_ours(attempt: KeptAnswer) -> Any:
    return KeptAnswer.objects.filter(pk=attempt.pk, created_at=attempt.created_at, status=None)


def _repeated(kept: KeptAnswer) -> Response:
    headers = {"Idempotent-Replayed": "true"} | ({"Location": kept.location} if kept.location else {})
    return Response(kept.body, status=kept.status, headers=headers)


def _parts(data: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(data, QueryDict):
        return [(f"{name}[{index}]", value) for name, values in data.lists() for index, value in enumerate(values)]
    if isinstance(data, Mapping):
        return [(str(name), value) for name, value in data.items()]
    return [("", data)]


def _read_into(update: Callable[[bytes], None], file: "UploadedFile[Any]") -> None:
    file.seek(0)
    while piece := file.read(READ_BYTES):
        update(piece)
    file.seek(0)
