"""Every URL by every method, as everybody who may not: nothing opens.

Each path of a tenant's API has one line in SCOPES, which says by method what opens it; the operator's has OPERATORS.
A path that is not there fails `test_every_path_is_in_the_table`, and so does a line whose path is gone.
"""

import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.urls import URLPattern
from django.utils import timezone

from tenants.authentication import INCLUDES
from tenants.models import ApiToken, Membership, Role, Tenant, User
from tenants.scope import tenant_scope
from tests.clients import TenantClient, client_of

READ, PREDICT, WRITE, ADMIN = "read", "predict", "write", "admin"
ANY = "any"  # whoever has a valid token
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")

# The paths of the API below a tenant's address, and the scope that opens each by method.
SCOPES: dict[str, dict[str, str]] = {
    "api/v1/whoami": {"GET": ANY},
    "api/v1/schema": {"GET": ANY},
    "api/v1/members": {"GET": ADMIN, "POST": ADMIN},
    "api/v1/members/<int:member_id>": {"GET": ADMIN, "PATCH": ADMIN, "DELETE": ADMIN},
    "api/v1/members/<int:member_id>/reset-link": {"POST": ADMIN},
    "api/v1/tokens": {"GET": ADMIN, "POST": ADMIN},
    "api/v1/tokens/<uuid:token_id>": {"GET": ADMIN, "DELETE": ADMIN},
    "api/v1/settings": {"GET": ADMIN, "PATCH": ADMIN},
    "api/v1/audit": {"GET": ADMIN},
    "api/v1/models": {"GET": READ, "POST": WRITE},
    "api/v1/models/<str:name>": {"GET": READ, "PATCH": WRITE, "DELETE": ADMIN},
    "api/v1/models/<str:name>/versions": {"GET": READ, "POST": WRITE},
    "api/v1/models/<str:name>/versions/<int:number>": {"GET": READ, "PATCH": WRITE, "DELETE": ADMIN},
    "api/v1/models/<str:name>/versions/<int:number>/files": {"GET": READ},
    "api/v1/models/<str:name>/versions/<int:number>/files/<path:path>": {"GET": READ},
    "api/v1/models/<str:name>/versions/<int:number>/artifact": {"GET": READ},
    "api/v1/models/<str:name>/versions/<int:number>/activate": {"POST": ADMIN},
    "api/v1/models/<str:name>/deactivate": {"POST": ADMIN},
    "api/v1/models/<str:name>/rollback": {"POST": ADMIN},
    "api/v1/models/<str:name>/activations": {"GET": READ},
    "api/v1/models/<str:name>/deployment": {"GET": READ, "PATCH": ADMIN},
    "api/v1/models/<str:name>/aliases/<str:alias>": {"GET": READ, "PUT": ADMIN, "DELETE": ADMIN},
    "api/v1/activate-best": {"POST": ADMIN},
    "api/v1/predict": {"POST": PREDICT},
    "api/v1/models/<str:name>/predict": {"POST": PREDICT},
    "api/v1/predictions/<uuid:prediction_id>": {"GET": PREDICT},
    "api/v1/predictions/<uuid:prediction_id>/cancel": {"POST": PREDICT},
    "api/v1/feedback": {"POST": PREDICT},
    "api/v1/batch-jobs": {"GET": READ, "POST": WRITE},
    "api/v1/batch-jobs/<uuid:batch_id>": {"GET": READ},
    "api/v1/batch-jobs/<uuid:batch_id>/cancel": {"POST": WRITE},
    "api/v1/batch-jobs/<uuid:batch_id>/result": {"GET": READ},
    "api/v1/documents": {"GET": READ, "POST": WRITE},
    "api/v1/documents/<uuid:document_id>": {"GET": READ, "DELETE": WRITE},
    "api/v1/documents/<uuid:document_id>/cancel": {"POST": WRITE},
    "api/v1/documents/<uuid:document_id>/retry": {"POST": WRITE},
    "api/v1/documents/<uuid:document_id>/result": {"GET": READ},
    "api/v1/documents/<uuid:document_id>/pages/<int:number>": {"GET": READ},
    "api/v1/documents/<uuid:document_id>/pages/<int:number>/image": {"GET": READ},
    "api/v1/documents/<uuid:document_id>/pages/<int:number>/overlay": {"GET": READ},
    "api/v1/documents/<uuid:document_id>/pages/<int:number>/crops/<int:place>": {"GET": READ},
    "api/v1/models/<str:name>/shadow": {"GET": READ},
    "v2": {"GET": ANY},
    "v2/health/live": {"GET": ANY},
    "v2/health/ready": {"GET": ANY},
    "v2/repository/index": {"POST": READ},
    "v2/repository/models/<str:name>/load": {"POST": WRITE},
    "v2/repository/models/<str:name>/unload": {"POST": WRITE},
    "v2/models/<str:name>": {"GET": ANY},
    "v2/models/<str:name>/ready": {"GET": ANY},
    "v2/models/<str:name>/infer": {"POST": PREDICT},
    "v2/models/<str:name>/versions/<str:version>": {"GET": ANY},
    "v2/models/<str:name>/versions/<str:version>/ready": {"GET": ANY},
    "v2/models/<str:name>/versions/<str:version>/infer": {"POST": PREDICT},
    "v2/<path:rest>": {"GET": ANY},
    "models/<str:name>/ping": {"GET": ANY},
    "models/<str:name>/version": {"GET": ANY},
    "models/<str:name>/invocations": {"POST": PREDICT},
    "api/v1/datasets": {"GET": READ, "POST": WRITE},
    "api/v1/datasets/<str:name>": {"GET": READ, "DELETE": WRITE},
    "api/v1/datasets/<str:name>/versions": {"GET": READ},
    "api/v1/datasets/<str:name>/versions/<str:digest>": {"GET": READ, "DELETE": WRITE},
    "api/v1/datasets/<str:name>/versions/<str:digest>/preview": {"GET": READ},
    "api/v1/datasets/<str:name>/versions/<str:digest>/profile": {"GET": READ},
    "api/v1/trainers": {"GET": READ},
    "api/v1/runs": {"GET": READ, "POST": WRITE},
    "api/v1/runs/compare": {"GET": READ},
    "api/v1/runs/custom": {"POST": WRITE},
    "api/v1/runs/external": {"POST": WRITE},
    "api/v1/runs/external/<uuid:external_id>": {"PATCH": WRITE},
    "api/v1/runs/external/<uuid:external_id>/log": {"POST": WRITE},
    "api/v1/runs/external/<uuid:external_id>/inputs": {"GET": READ},
    "api/v1/runs/external/<uuid:external_id>/artifacts": {"GET": READ, "POST": WRITE},
    "api/v1/runs/external/<uuid:external_id>/artifacts/<path:path>": {"GET": READ, "DELETE": WRITE},
    "api/v1/runs/<uuid:run_id>/evaluation": {"GET": READ},
    "api/v1/searches": {"GET": READ, "POST": WRITE},
    "api/v1/searches/<uuid:run_id>": {"GET": READ},
    "api/v1/models/<str:name>/versions/<int:number>/evaluate": {"POST": WRITE},
    "api/v1/runs/<uuid:run_id>": {"GET": READ},
    "api/v1/runs/<uuid:run_id>/cancel": {"POST": WRITE},
    "api/v1/runs/<uuid:run_id>/metrics": {"GET": READ},
    "api/v1/runs/<uuid:run_id>/logs": {"GET": READ},
    "api/v1/experiments": {"GET": READ, "POST": WRITE},
}

# The same for the operator's surface; the tokens are operators'.
OPERATORS: dict[str, dict[str, str]] = {
    "api/v1/whoami": {"GET": ANY},
    "api/v1/schema": {"GET": ANY},
    "api/v1/status": {"GET": READ},
    "api/v1/runs": {"POST": ADMIN},
    "api/v1/runs/<uuid:group_id>": {"GET": READ},
    "api/v1/tenants": {"GET": READ, "POST": ADMIN},
    "api/v1/tenants/<str:tenant_id>": {"GET": READ, "PATCH": ADMIN, "DELETE": ADMIN},
    "metrics": {"GET": READ},
}
ABOUT_THE_PROCESS = frozenset(["healthz", "readyz"])  # open to everybody; they say nothing about anybody

# Pages: who is not logged in as a member is sent to the login page (SHUT), or is answered without being known (OPEN).
SHUT, OPEN = "shut", "open"
PAGES: dict[str, str] = {
    "": SHUT,
    "docs": SHUT,
    "password": SHUT,
    "password/done": SHUT,
    "login": OPEN,
    "logout": OPEN,
    "reset/<str:uidb64>/<str:token>": OPEN,
    "reset/done": OPEN,
}
SHUT_BELOW = ("admin/",)  # every page below these is SHUT, without a line of its own
OF_THEIR_OWN = frozenset(
    ["password", "password/done", "docs"]
)  # about the person who is logged in, not about the tenant

# Values for the parameters of the paths: what belongs to another tenant, or to nobody.
OTHERS: dict[str, Callable[[Tenant], object]] = {
    "name": lambda other: "theirs",
    "alias": lambda other: "champion",
    "number": lambda other: 1,
    "path": lambda other: "model.pkl",
    "rest": lambda other: "nothing",
    "version": lambda other: 1,
    "digest": lambda other: "0" * 64,
    "member_id": lambda other: Membership.objects.filter(tenant=other).values_list("pk", flat=True)[0],
    "token_id": lambda other: ApiToken.objects.filter(tenant=other).values_list("pk", flat=True)[0],
    "run_id": lambda other: _other_run(other),
    "external_id": lambda other: _other_run(other),
    "group_id": lambda other: uuid.uuid4(),
    "prediction_id": lambda other: uuid.uuid4(),
    "batch_id": lambda other: _other_batch(other),
    "document_id": lambda other: _other_document(other),
    "place": lambda other: 0,
    "uidb64": lambda other: "MQ",
    "token": lambda other: "abc-def",
}


def patterns(surface: str = "tenant") -> Iterator[tuple[str, URLPattern]]:
    """Every path of a surface (`tenant` or `operator`), with its route in full."""
    from tenantry import urls

    return _walk(urls.tenant_urlpatterns if surface == "tenant" else urls.urlpatterns)


def _walk(entries: Any, before: str = "") -> Iterator[tuple[str, URLPattern]]:
    for entry in entries:
        route = before + str(entry.pattern)
        if isinstance(entry, URLPattern):
            yield route, entry
        else:
            yield from _walk(entry.url_patterns, route)


def methods_of(pattern: URLPattern) -> set[str]:
    """The methods that a class-based view has handlers for."""
    view = getattr(pattern.callback, "view_class", None) or getattr(pattern.callback, "cls", None)
    return {method for method in METHODS if method != "HEAD" and hasattr(view, method.lower())}


def is_page(route: str) -> bool:
    return route in PAGES or route.startswith(SHUT_BELOW)


@pytest.fixture
def requests_to(globex: Tenant) -> Callable[[str], str]:
    """`requests_to(route)`: the path of a route with parameters that are globex's."""
    pages = dict(patterns())

    def path_of(route: str) -> str:
        path = route
        for name, converter in pages[route].pattern.converters.items():
            if name not in OTHERS:
                pytest.fail(f'Add a value of another tenant for "{name}" to OTHERS in {__file__}: {route} takes it.')
            value = str(OTHERS[name](globex))
            path = _replaced(path, name, value)
            assert converter is not None
        return path

    return path_of


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("surface", "name", "table"), [("tenant", "SCOPES", SCOPES), ("operator", "OPERATORS", OPERATORS)]
)
def test_every_path_is_in_the_table(surface: str, name: str, table: dict[str, dict[str, str]]) -> None:
    """A new path of the API needs a line in SCOPES or OPERATORS, a new page one in PAGES."""
    complaints = []
    routes = dict(patterns(surface))
    for route, pattern in routes.items():
        if is_page(route) or (surface == "operator" and route in ABOUT_THE_PROCESS):
            continue
        methods = methods_of(pattern)
        if route not in table:
            line = ", ".join(f'"{method}": READ or WRITE or ADMIN' for method in sorted(methods) or ["GET"])
            complaints.append(f'"{route}" is not covered: add to {name} the line    "{route}": {{{line}}},')
        elif methods - set(table[route]):
            missing = ", ".join(sorted(methods - set(table[route])))
            complaints.append(f'"{route}" also takes {missing}: say in its line of {name} which scope opens it.')
    complaints += [f'"{route}" is gone: remove its line.' for route in {*table, *PAGES} - set(routes)]
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize("route", SCOPES)
def test_nobody_unknown_gets_in(route: str, acme: Tenant, globex: Tenant, requests_to: Callable[[str], str]) -> None:
    _, expired = ApiToken.mint(
        name="old", tenant=acme, scopes=["admin"], expires_at=timezone.now() - timedelta(seconds=1)
    )
    _, revoked = ApiToken.mint(name="gone", tenant=acme, scopes=["admin"], revoked_at=timezone.now())
    _, elsewhere = _operator_token(globex)
    tokens = {
        "no token": "",
        "a token of nobody": "tny_nonsense",
        "an expired token": expired,
        "a revoked token": revoked,
        "another tenant's token": ApiToken.mint(name="theirs", tenant=globex, scopes=["admin"])[1],
        "an operator's token for another tenant": elsewhere,
    }
    path, client = requests_to(route), TenantClient(acme.base_path)
    for who, client.token in tokens.items():
        for method in METHODS:
            status = _ask(client, method, path)
            allowed = (401,) if method in SCOPES[route] else (401, 404, 405)
            assert status in allowed, f"{method} {route} with {who} answers {status}"


@pytest.mark.parametrize("route", SCOPES)
def test_a_lesser_scope_is_refused_and_the_right_one_is_not(
    route: str, acme: Tenant, requests_to: Callable[[str], str]
) -> None:
    path, client = requests_to(route), TenantClient(acme.base_path)
    for scope in (READ, PREDICT, WRITE, ADMIN):
        _, client.token = ApiToken.mint(name=scope, tenant=acme, scopes=[scope])
        for method in METHODS:
            needed = SCOPES[route].get("GET" if method == "HEAD" else method)
            response = _response(client, method, path)
            told = f"{method} {route} with the scope '{scope}' answers {response.status_code}"
            if needed is None:
                assert response.status_code in (403, 404, 405), told
            elif needed == ANY or needed in INCLUDES[scope]:
                assert response.status_code not in (401, 403), told
                assert response.status_code < 500, told
            else:
                assert response.status_code == 403, told
                assert method == "HEAD" or b"needs the scope" in response.content, told


@pytest.mark.parametrize("role", [Role.VIEWER, Role.DATA_SCIENTIST, None])
@pytest.mark.parametrize("route", SCOPES)
def test_a_login_opens_what_its_role_opens(
    route: str, role: Role | None, acme: Tenant, globex: Tenant, requests_to: Callable[[str], str]
) -> None:
    """As a member of acme; without a role, as a member of globex alone."""
    user = User.objects.create(email="someone@example.test")
    Membership.objects.create(tenant=acme if role else globex, user=user, role=role or Role.ADMIN)
    client = TenantClient(acme.base_path)
    client.force_login(user)
    path = requests_to(route)
    for method, needed in SCOPES[route].items():
        opens = role is not None and (needed == ANY or needed in INCLUDES[role.scope])
        refusal = 401 if role is None else 403
        status = _ask(client, method, path)
        assert (status not in (401, 403)) if opens else (status == refusal), f"{method} {route} answers {status}"


@pytest.mark.parametrize("route", [route for route in SCOPES if "<" in route])
def test_what_is_another_tenants_is_not_there(
    route: str, acme: Tenant, globex: Tenant, requests_to: Callable[[str], str]
) -> None:
    client, path = client_of(acme), requests_to(route)
    for method in SCOPES[route]:
        status = _ask(client, method, path)
        # A body may be found wanting before the object is looked for.
        allowed = (404,) if method in ("GET", "DELETE") else (404, 400, 415, 422)
        assert status in allowed, f"{method} {route} for what is another tenant's answers {status}"


@pytest.mark.parametrize("surface", ["tenant", "operator"])
def test_pages_are_shut_to_who_is_no_member(surface: str, acme: Tenant, globex: Tenant) -> None:
    """As nobody, and as an admin of globex: in acme, and on the operator's surface."""
    base_path = acme.base_path if surface == "tenant" else ""
    own = OF_THEIR_OWN | ({""} if surface == "operator" else set())  # the main host's start page lists one's tenants
    stranger = User.objects.create(email="stranger@example.test", is_staff=True)
    Membership.objects.create(tenant=globex, user=stranger, role=Role.ADMIN)
    nobody, logged_in = TenantClient(base_path), TenantClient(base_path)
    logged_in.force_login(stranger)
    shut = [route for route, _ in patterns(surface) if is_page(route) and PAGES.get(route) != OPEN]
    complaints = [
        f"{method} {route} as nobody: {status}" for route in shut for method, status in _opened(nobody, route)
    ]
    for route in shut:
        if route not in own:
            complaints += [f"{method} {route} as a stranger: {status}" for method, status in _opened(logged_in, route)]
    assert not complaints, "\n".join(complaints)


def _operators_path(route: str) -> str:
    return route.replace("<str:tenant_id>", "acme").replace("<uuid:group_id>", str(uuid.UUID(int=7)))


@pytest.mark.parametrize("route", OPERATORS)
def test_the_operators_surface_opens_to_no_tenants_caller(route: str, acme: Tenant) -> None:
    admin, path = TenantClient(""), _operators_path(route)
    admin.force_login(User.objects.get(email="admin@acme.test"))
    clients = {
        "nobody": TenantClient(""),
        "a tenant's token": TenantClient("", client_of(acme).token),
        "an admin": admin,
    }
    for who, client in clients.items():
        for method in METHODS:
            status = _ask(client, method, path)
            allowed = {401} | ({404, 405} if method not in OPERATORS[route] else set())
            assert status in allowed, f"{method} {route} as {who} answers {status}"


@pytest.mark.parametrize("route", OPERATORS)
def test_an_operator_is_held_to_scopes_and_to_the_tenants_listed(route: str, acme: Tenant, globex: Tenant) -> None:
    client, path = TenantClient(""), _operators_path(route)
    for scope in (READ, PREDICT, WRITE):
        _, client.token = ApiToken.mint(name=scope, scopes=[scope], all_tenants=True)
        for method, needed in OPERATORS[route].items():
            opens = needed == ANY or needed in INCLUDES[scope]
            status = _ask(client, method, path)
            assert (status not in (401, 403)) if opens else status == 403, f"{method} {route} by '{scope}': {status}"
    _, client.token = _operator_token(globex)
    for method in OPERATORS[route]:
        response = _response(client, method, path)
        assert response.status_code in (403, 404) or b"acme" not in response.content.lower(), f"{method} {route}"


@pytest.mark.parametrize("header", [{}, {"HTTP_AUTHORIZATION": "Bearer tny_nonsense"}])
@pytest.mark.parametrize("path", ["api/v1/models", "api/v1/predict", "api/v1/nothing", "api/v1/settings"])
def test_an_unknown_tenant_answers_as_a_known_one(path: str, header: dict[str, str], acme: Tenant) -> None:
    same_id = {"HTTP_X_REQUEST_ID": "0123456789abcdef"} | header
    method = "POST" if path.endswith("predict") else "GET"
    known = TenantClient(acme.base_path).generic(method, path, **same_id)
    unknown = TenantClient("/t/no-such-tenant").generic(method, path, **same_id)
    impossible = TenantClient("/t/No_Such").generic(method, path, **same_id)

    assert known.status_code == unknown.status_code == impossible.status_code == 401
    assert known.content == unknown.content == impossible.content
    assert known["WWW-Authenticate"] == unknown["WWW-Authenticate"]


def _opened(client: TenantClient, route: str) -> Iterator[tuple[str, int]]:
    """The methods by which a page that should be shut answers anything but "log in", "no" or "not there"."""
    path = _filled(route)
    for method in ("GET", "POST"):
        response = _response(client, method, path)
        sent_to_login = response.status_code == 302 and "login" in response["Location"]
        if not sent_to_login and response.status_code not in (401, 403, 404, 405):
            yield method, response.status_code


def _filled(route: str) -> str:
    """The path of a page's route, with 1 for every parameter (regular expressions of the admin included)."""
    path = route.replace("^", "").replace("$", "").replace("\\Z", "").replace("(?P<url>.*)", "x")
    while "<" in path:
        start, end = path.index("<"), path.index(">")
        path = f"{path[:start]}1{path[end + 1 :]}"
    return path


def _replaced(path: str, name: str, value: str) -> str:
    start = next(at for at in (path.find(f":{name}>"), path.find(f"<{name}>")) if at >= 0)
    begin, end = path.rindex("<", 0, start + 1), path.index(">", start)
    return f"{path[:begin]}{value}{path[end + 1 :]}"


def _response(client: TenantClient, method: str, path: str) -> Any:
    body = "{}" if method in ("POST", "PUT", "PATCH") else ""
    return client.generic(method, path, body, content_type="application/json")


def _ask(client: TenantClient, method: str, path: str) -> int:
    return int(_response(client, method, path).status_code)


def _operator_token(tenant: Tenant) -> tuple[ApiToken, str]:
    token, secret = ApiToken.mint(name="operator", scopes=["admin"])
    token.tenants.add(tenant)
    return token, secret


def _other_batch(other: Tenant) -> uuid.UUID:
    from inference.models import BatchJob
    from models_registry.models import Bundle
    from tenants.models import Job

    with tenant_scope(other):
        bundle = Bundle.objects.create(digest=uuid.uuid4().hex, size_bytes=0)
        job = Job.objects.create(tenant=other, kind="inference.batch", object_id="tests")
        return BatchJob.objects.create(
            id=job.pk, job=job, model_name="theirs", version_number=1, table=bundle, format="csv"
        ).pk


def _other_document(other: Tenant) -> uuid.UUID:
    from documents.models import Document, DocumentPage
    from models_registry.models import Bundle
    from tenants.models import Job

    with tenant_scope(other):
        bundle = Bundle.objects.create(digest=uuid.uuid4().hex, size_bytes=0)
        job = Job.objects.create(tenant=other, kind="documents.read", object_id="tests")
        document = Document.objects.create(
            job=job, title="theirs", model_name="theirs", version_number=1, source=bundle, dpi=150, min_score=0.5
        )
        DocumentPage.objects.create(document=document, number=1, width_pt=1, height_pt=1)
        return document.pk


def _other_run(other: Tenant) -> uuid.UUID:
    from training.models import Run, RunKind

    with tenant_scope(other):
        return Run.objects.create(kind=RunKind.EXTERNAL).pk
