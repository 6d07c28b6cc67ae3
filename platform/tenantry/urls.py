"""The whole HTTP surface: the operator's at the root of the main host, a tenant's below its address.

Both begin with the pages of `tenants.ui`; each app names the paths of its API, and one line here mounts them.
"""

from collections.abc import Callable
from dataclasses import dataclass

from django.http import HttpResponse
from django.urls import URLPattern, URLResolver, include, path

from common import error_pages
from documents import api as documents_api
from inference import api as inference_api
from inference import mlflow_scoring, shadow_api
from inference.batch import api as batch_api
from inference.open_inference import views as open_inference
from models_registry import api as models_registry_api
from models_registry import deployment_api
from tenantry import health, metrics
from tenants import api as tenants_api
from tenants import operator_api, ui
from tenants.openapi import SchemaView
from tenants.site.sites import operator_site, tenant_site
from training import api as training_api
from training import operator_api as training_operator_api

Urls = list[URLPattern | URLResolver]

urlpatterns: Urls = [
    path("healthz", health.healthz),
    path("readyz", health.readyz),
    path("metrics", metrics.MetricsView.as_view(), name="metrics"),
    path("api/v1/", include(operator_api.operator_api_urlpatterns)),
    path("api/v1/", include(training_operator_api.operator_api_urlpatterns)),
    path("api/v1/status", health.StatusView.as_view(), name="status"),
    path("api/v1/schema", SchemaView.as_view(), name="schema"),
    path("admin/", operator_site.urls),
    path("", include(ui.urlpatterns)),
]

tenant_urlpatterns: Urls = [
    path("api/v1/", include(tenants_api.api_urlpatterns)),
    path("api/v1/", include(models_registry_api.api_urlpatterns)),
    path("api/v1/", include(deployment_api.api_urlpatterns)),
    path("api/v1/", include(inference_api.api_urlpatterns)),
    path("api/v1/", include(batch_api.api_urlpatterns)),
    path("api/v1/", include(shadow_api.api_urlpatterns)),
    path("api/v1/", include(training_api.api_urlpatterns)),
    path("api/v1/", include(documents_api.api_urlpatterns)),
    path("api/v1/schema", SchemaView.as_view(), name="schema"),
    path("", include(open_inference.urlpatterns)),
    path("", include(mlflow_scoring.urlpatterns)),
    path("admin/", tenant_site.urls),
    path("", include(ui.urlpatterns)),
]

handler400, handler403, handler404, handler500 = (
    error_pages.bad_request,
    error_pages.denied,
    error_pages.not_found,
    error_pages.broken,
)


@dataclass(frozen=True, eq=False)
class Surface:
    """A set of URLs that a request can be given as its `urlconf`, with what answers where none of them does."""

    urlpatterns: Urls
    handler400: Callable[..., HttpResponse] = error_pages.bad_request
    handler403: Callable[..., HttpResponse] = error_pages.denied
    handler404: Callable[..., HttpResponse] = ui.not_found
    handler500: Callable[..., HttpResponse] = error_pages.broken


TENANT_SURFACE = Surface(tenant_urlpatterns)
