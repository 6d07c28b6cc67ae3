"""What of which version runs here."""

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import cast

from django.conf import settings
from django.core.cache import caches
from django.db import connection
from django.http import HttpRequest, HttpResponse

from inference.pool import ModelPool
from inference.queued.valkey import valkey
from tenants.models import Scope
from tenants.site.parts import Facts, Part, Table
from tenants.site.sites import Nav, operator_site

LIBRARIES = (
    *(
        "Django",
        "djangorestframework",
        "django-tenants",
        "django-unfold",
        "celery",
        "kombu",
        "redis",
        "psycopg2-binary",
    ),
    *(
        "granian",
        "gunicorn",
        "numpy",
        "pydantic",
        "scikit-learn",
        "onnx",
        "onnxruntime",
        "torch",
        "xgboost",
        "lightgbm",
    ),
)
OWN = "tenantry"


@operator_site.page("versions", Nav("Platform", "info", 90, "Versions"), Scope.ADMIN)
def versions(request: HttpRequest) -> HttpResponse:
    """The platform's release and everything below it."""
    return operator_site.shown(
        request, "admin/detail.html", "Versions", parts=[_platform_part(), _libraries_part(), *_sets_parts()]
    )


def installed(name: str) -> str:
    """The version of an installed library; empty where there is none."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _platform_part() -> Part:
    facts = {
        "Tenantry": installed(OWN),
        "Python": sys.version.split()[0],
        "PostgreSQL": _postgres(),
        "Valkey": _valkey(),
        "System": f"{platform.system()} {platform.release()}",
        "Machine": f"{platform.node()}, {platform.machine()}",
    }
    return Part("Platform", Facts(facts))


def _postgres() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SHOW server_version")
        return str(cursor.fetchone()[0])


def _valkey() -> str:
    try:
        told: dict[str, str] = valkey().info("server")
    except Exception as error:  # whatever its driver raises: the rest of the page is as good
        return f"does not answer: {type(error).__name__}"
    return told.get("valkey_version") or f"Redis {told.get('redis_version', '')}"


def _libraries_part() -> Part:
    return Part("Libraries", Facts({name: installed(name) for name in LIBRARIES}))


def _sets_parts() -> list[Part]:
    """The library sets that this machine's runners have."""
    if not settings.MODELS_SOCKET:
        return []
    try:
        stats = cast(ModelPool, caches["models"]).stats()
    except Exception as error:  # a host that is away must not take the page with it
        return [Part("Library sets", Facts({}, empty=f"The model host does not answer: {error}."), is_wide=True)]
    rows = [(name, ", ".join(f"{one} {told}" for one, told in of.items())) for name, of in stats.library_sets.items()]
    return [Part("Library sets", Table(("Set", "Libraries"), rows, "There are none."), is_wide=True)]
