"""The tenant's audit trail, and the answers kept for requests that may be sent twice."""

import uuid

from django.db import models


class AuditEvent(models.Model):
    """Who did what in this tenant, and when. Rows are only ever added.

    actor: an email address, `token:NAME` or `operator:NAME`.
    action: `noun.verb`, such as `version.activate`.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    at = models.DateTimeField(auto_now_add=True, db_index=True)
    actor = models.CharField(max_length=250)
    action = models.CharField(max_length=80)
    target = models.CharField(max_length=250, blank=True)
    detail = models.JSONField(default=dict)
    request_id = models.CharField(max_length=100, blank=True)

    class Meta:
        ordering = ("-at",)

    def __str__(self) -> str:
        return f"{self.actor} {self.action} {self.target}"


class KeptAnswer(models.Model):
    """The answer to a request that came with an Idempotency-Key, so that its repetition gets the same.

    status is null while the first request is still being worked on.
    fingerprint: digest of the body, by which another body under the same key is refused.
    """

    key = models.CharField(max_length=200)
    caller = models.CharField(max_length=250)
    path = models.CharField(max_length=500)
    fingerprint = models.CharField(max_length=64)
    status = models.PositiveSmallIntegerField(null=True)
    body = models.JSONField(null=True)
    location = models.CharField(max_length=500, blank=True)
    created_at = models.DateTimeField(auto_now_add=True, db_index=True)

    class Meta:
        constraints = (models.UniqueConstraint(fields=["caller", "path", "key"], name="journal_kept_answer_once"),)

    def __str__(self) -> str:
        return f"{self.caller} {self.path} {self.key}"
