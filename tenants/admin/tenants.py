"""Tenants, in the operator's admin site: made, changed, suspended, deleted."""

from typing import Any

from django.contrib import admin
from django.db.models import Count, IntegerField, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from tenants import provisioning, services
from tenants.admin.jobs import waited
from tenants.admin.members import MemberForm
from tenants.models import Job, JobState, Membership, Scope, Tenant, TenantState, User
from tenants.site.forms import ChoiceField, EmailField, NumberField, PageForm, TextField
from tenants.site.pages import Question, ScopedPages, answers, column, moment_column, object_action, page_url
from tenants.site.parts import Facts, Part, Table, link, size, when
from tenants.site.sites import Nav, operator_site

STATE_TONES = {
    TenantState.ACTIVE.value: "success",
    TenantState.SUSPENDED.value: "warning",
    TenantState.DELETING.value: "danger",
}
MOST_MEMBERS = 50
NEWEST = 10


def storage_choices() -> list[tuple[str, str]]:
    """The configured storages."""
    return [(alias, alias) for alias in provisioning.storage_aliases()]


class ProvisionForm(PageForm):
    """What a new tenant is called, who administers it, and where its files go."""

    tenant_id = TextField(
        label="tenantId",
        max_length=40,
        help_text="3 to 40 of a-z, 0-9 and '-'. It is in the tenant's address for good.",
    )
    name = TextField(max_length=200, help_text="The customer's name, as its own pages show it.")
    admin_email = EmailField(label="First admin", help_text="Gets a first password, unless the platform knows them.")
    storage_alias = ChoiceField(label="Storage", choices=storage_choices, help_text="Where its models' files are kept.")


class TenantForm(PageForm):
    """What an operator says of a tenant."""

    name = TextField(max_length=200)
    storage_alias = ChoiceField(
        label="Storage", choices=storage_choices, help_text="Files stay where they are; what comes later goes there."
    )
    max_artifact_bytes = NumberField(min_value=1, label="Most bytes an upload")
    max_storage_bytes = NumberField(min_value=0, label="Most bytes kept")
    max_dataset_bytes = NumberField(min_value=0, label="Most bytes of datasets")
    max_open_runs = NumberField(min_value=0, label="Most open runs")
    max_running_runs = NumberField(min_value=1, label="Most runs at once")
    max_run_seconds = NumberField(min_value=1, label="Longest run, in seconds")
    max_run_cpu_seconds = NumberField(min_value=1, label="Most CPU time of a run, in seconds")
    max_run_memory_bytes = NumberField(min_value=1 << 20, label="Most memory of a run, in bytes")


class DeleteForm(PageForm):
    """Asks for the tenantId, so that nobody deletes by habit."""

    confirm = TextField(label="Type the tenantId")


@admin.register(Tenant, site=operator_site)
class TenantPages(ScopedPages):
    """The customers of the platform."""

    see = Scope.ADMIN
    add = Scope.ADMIN
    add_title = "Provision a tenant"
    nav = Nav("Platform", "apartment", 10)
    list_display = ("tenant_id", "name", "shown_state", "storage_alias", "quota", "member_count", "open_jobs", "made")
    made = moment_column("Made", "created_at")
    list_filter = ("state", "storage_alias")
    search_fields = ("tenant_id", "name", "memberships__user__email")
    actions_detail = ("open", "edit", "add_member", "suspend", "resume", "remove")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        # Subqueries, for the two joined would make a row for every member with every job.
        return Tenant.objects.annotate(
            membership_count=_count_of(Membership.objects.all()), open_job_count=_count_of(Job.objects.open())
        )

    @column("State", ordering="state", tones=STATE_TONES)
    def shown_state(self, tenant: Tenant) -> tuple[str, str]:
        return tenant.state, tenant.get_state_display()

    @column("Storage quota", ordering="max_storage_bytes")
    def quota(self, tenant: Tenant) -> str:
        return size(tenant.max_storage_bytes)

    @column("Members", ordering="membership_count")
    def member_count(self, tenant: Tenant) -> int:
        return int(getattr(tenant, "membership_count", 0))

    @column("Open jobs", ordering="open_job_count")
    def open_jobs(self, tenant: Tenant) -> int:
        return int(getattr(tenant, "open_job_count", 0))

    def parts(self, request: HttpRequest, obj: Tenant) -> list[Part]:
        facts = {
            "tenantId": obj.tenant_id,
            "Name": obj.name,
            "State": obj.get_state_display(),
            "Address": link(f"{obj.base_path}/admin/", f"{obj.base_path}/"),
            "Host names": ", ".join(domain.domain for domain in obj.domains.all()),
            "uuid": obj.uuid,
            "Made": when(obj.created_at),
        }
        quotas = {
            "Storage": obj.storage_alias,
            "Most bytes kept": size(obj.max_storage_bytes),
            "Most bytes an upload": size(obj.max_artifact_bytes),
            "Most bytes of datasets": size(obj.max_dataset_bytes),
            "Most open runs": f"{obj.max_open_runs}, of them {obj.max_running_runs} at once",
            "Of a run": f"{obj.max_run_seconds} s, {obj.max_run_cpu_seconds} s CPU, {size(obj.max_run_memory_bytes)}",
            "Open jobs": self.open_jobs(obj),
        }
        return [
            Part("Tenant", Facts(facts)),
            Part("Storage and quotas", Facts(quotas)),
            *operator_site.tenant_parts(request, obj),
            _members_part(obj),
        ]

    def applies(self, action: str, obj: Tenant) -> bool:
        is_going = obj.state == TenantState.DELETING
        shown = {"suspend": obj.is_active, "resume": obj.state == TenantState.SUSPENDED, "remove": True}
        return shown.get(action, not is_going)

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        self.require_add(request)

        def act(said: dict[str, Any]) -> HttpResponse:
            made = services.provision_tenant(actor=self.caller(request).name, **said)
            password = [("First password", made.admin_password)] if made.admin_password else []
            return self.show_once(
                request,
                f"{made.tenant.tenant_id} is ready",
                [*password, ("First token", made.token)],
                f"{made.admin.email} logs in at {request.build_absolute_uri(f'{made.tenant.base_path}/admin/')}.",
                back=self.url("change", made.tenant.pk),
            )

        question = Question(
            "Provision a tenant", "Provision", says=["It gets a schema, a first admin and a first token."]
        )
        return self.ask(request, question, answers(ProvisionForm, request), act, back=self.url("changelist"))

    @object_action("Open its admin", "open_in_new", Scope.ADMIN, "open")
    def open(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return HttpResponse(status=302, headers={"Location": f"{self.found(request, object_id).base_path}/admin/"})

    @object_action("Edit", "edit", Scope.ADMIN, "edit")
    def edit(self, request: HttpRequest, object_id: str) -> HttpResponse:
        tenant: Tenant = self.found(request, object_id)

        def act(said: dict[str, Any]) -> str:
            changes = {name: value for name, value in said.items() if value != getattr(tenant, name)}
            if changes:
                services.update_tenant(tenant=tenant, changes=changes, actor=self.caller(request).name)
            return f"{tenant.tenant_id} was changed."

        form = answers(TenantForm, request, initial={name: getattr(tenant, name) for name in TenantForm.base_fields})
        question = Question(f"Change {tenant.tenant_id}", "Change")
        return self.ask(request, question, form, act, about=tenant, back=self.url("change", tenant.pk))

    @object_action("Add a member", "person_add", Scope.ADMIN, "members")
    def add_member(self, request: HttpRequest, object_id: str) -> HttpResponse:
        tenant: Tenant = self.found(request, object_id)
        back = self.url("change", tenant.pk)

        def act(said: dict[str, Any]) -> str | HttpResponse:
            actor = self.caller(request).name
            member, password = services.add_member(tenant=tenant, actor=actor, by_operator=True, **said)
            done = f"{member.user.email} is a member of {tenant.tenant_id} now"
            if password is None:
                return f"{done}, with the password they have."
            return self.show_once(request, done, [("First password", password)], back=back)

        question = Question(f"Add a member to {tenant.tenant_id}", "Add")
        return self.ask(request, question, answers(MemberForm, request), act, about=tenant, back=back)

    @object_action("Suspend", "pause_circle", Scope.ADMIN, "suspend")
    def suspend(self, request: HttpRequest, object_id: str) -> HttpResponse:
        says = ["Its requests are refused and its jobs wait, until it is resumed. Its things stay as they are."]
        return self._set_suspended(request, object_id, True, "Suspend", says)

    @object_action("Resume", "play_circle", Scope.ADMIN, "resume")
    def resume(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._set_suspended(request, object_id, False, "Resume", ["It is served again, and its jobs go on."])

    def _set_suspended(
        self, request: HttpRequest, object_id: str, suspended: bool, verb: str, says: list[str]
    ) -> HttpResponse:
        tenant: Tenant = self.found(request, object_id)

        def act(said: dict[str, Any]) -> str:
            services.set_suspended(tenant=tenant, suspended=suspended, actor=self.caller(request).name)
            return f"{tenant.tenant_id} is {tenant.get_state_display().lower()}."

        question = Question(f"{verb} {tenant.tenant_id}?", verb, says=says)
        back = self.url("change", tenant.pk)
        return self.ask(request, question, answers(PageForm, request), act, about=tenant, back=back)

    @object_action("Delete", "delete_forever", Scope.ADMIN, "remove")
    def remove(self, request: HttpRequest, object_id: str) -> HttpResponse:
        tenant: Tenant = self.found(request, object_id)

        def act(said: dict[str, Any]) -> str:
            services.delete_tenant(tenant=tenant, confirm=said["confirm"], actor=self.caller(request).name)
            return f"{said['confirm']} is gone for good."

        says = [
            "Its models, versions, datasets, runs, audit trail, tokens and files are removed, from every storage.",
            "Nothing brings them back but a backup.",
        ]
        question = Question(
            f"Delete {tenant.tenant_id} and everything it owns?", "Delete for good", says, is_final=True
        )
        return self.ask(request, question, answers(DeleteForm, request), act, about=tenant, back=self.url("changelist"))


def _count_of(rows: QuerySet[Any]) -> Coalesce:
    """How many of these rows are a tenant's."""
    own = rows.filter(tenant=OuterRef("pk")).order_by().values("tenant").annotate(count=Count("pk"))
    return Coalesce(Subquery(own.values("count"), output_field=IntegerField()), 0)


def _members_part(tenant: Tenant) -> Part:
    members = Membership.objects.filter(tenant=tenant).select_related("user")[:MOST_MEMBERS]
    rows = [
        (link(page_url(User, "change", one.user_id), one.user.email), one.get_role_display(), when(one.user.last_login))
        for one in members
    ]
    return Part("Members", Table(("Email", "Role", "Last logged in"), rows, "Nobody is a member."))


@operator_site.panel(rank=3)
def tenants_panel(request: HttpRequest) -> Part:
    """How many tenants there are, and the newest."""
    states = dict(Tenant.objects.order_by().values_list("state").annotate(Count("pk")))
    counts = ", ".join(f"{states.get(state.value, 0)} {state.label.lower()}" for state in TenantState)
    rows = [
        (link(page_url(one, "change", one.pk), one.tenant_id), one.name, one.get_state_display(), when(one.created_at))
        for one in Tenant.objects.order_by("-created_at")[:NEWEST]
    ]
    empty = "There are no tenants yet. Provision the first one: it takes a second."
    table = Table(("tenantId", "Name", "State", "Made"), rows, empty)
    more = (page_url(Tenant, "changelist"), "All tenants")
    return Part("Tenants", table, more, notes=[f"{counts}."])


@operator_site.panel(rank=0)
def oldest_panel(request: HttpRequest) -> Part:
    """The job that has waited longest."""
    due = Job.objects.filter(state=JobState.QUEUED, due_at__lte=timezone.now())
    oldest = due.select_related("tenant").order_by("due_at").first()
    if oldest is None:
        return Part("Oldest queued job", Facts({}, empty="No job waits."))
    facts = {
        "Has waited": waited(oldest.due_at),
        "Job": link(page_url(oldest, "change", oldest.pk), oldest.kind),
        "Tenant": oldest.tenant,
        "Attempts": f"{oldest.attempts} of {oldest.max_attempts}",
    }
    return Part("Oldest queued job", Facts(facts))
