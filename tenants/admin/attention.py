"""Jobs that failed, among what needs attention on a tenant's home."""

from collections.abc import Iterator
from datetime import timedelta

from django.http import HttpRequest
from django.utils import timezone

from tenants.models import Job, JobState
from tenants.scope import current_tenant
from tenants.site.attention import Concern
from tenants.site.pages import page_url
from tenants.site.parts import link
from tenants.site.sites import tenant_site

LATELY = timedelta(days=7)
SHOWN = 8


@tenant_site.concern
def failed_jobs(request: HttpRequest) -> Iterator[Concern]:
    """The tenant's jobs that failed lately, of the kinds that have pages."""
    pages = tenant_site.job_models
    failed = Job.objects.filter(tenant=current_tenant(), state=JobState.FAILED, kind__in=pages)
    for job in failed.filter(finished_at__gt=timezone.now() - LATELY).order_by("-finished_at")[:SHOWN]:
        model = pages[job.kind]
        what = link(page_url(model, "change", job.object_id), str(model._meta.verbose_name).capitalize())
        yield Concern(what, "failed", job.error_message or "It failed.", job.finished_at)
