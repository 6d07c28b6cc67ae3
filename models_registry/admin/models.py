"""Pages of registered models: what serves, which versions there are, what served before."""

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Prefetch, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.http import urlencode
from django.utils.safestring import SafeString

from common.errors import Conflict
from models_registry import deployments, services
from models_registry.admin.comparison import comparison_part, serving_version
from models_registry.admin.deployment import DeploymentForm, changes_of, initial_of, routing_part
from models_registry.admin.parts import (
    activations_part,
    metrics_over_versions_part,
    serving_part,
    version_link,
    versions_table,
)
from models_registry.metadata import parse_metadata
from models_registry.models import Activation, Alias, Deployment, ModelVersion, RegisteredModel
from models_registry.selection import DIRECTIONS
from models_registry.standing import Best, best_metrics
from tenants.models import Scope
from tenants.site.filters import KnownValues
from tenants.site.forms import ChoiceField, JsonField, LongTextField, PageForm, ReasonForm, TextField
from tenants.site.pages import Question, ScopedPages, answers, column, moment_column, object_action, page_url
from tenants.site.parts import Card, Facts, Part, Table, label, number, size, tags, when
from tenants.site.sites import Nav, tenant_site

SHOWN_VERSIONS = 20
PLOTTED = 200
SHOWN_ACTIVATIONS = 8
MOST_ACTIVATIONS = 500
NO_VERSIONS = "There are no versions yet. Upload the first one."


class DescriptionForm(PageForm):
    """What is said of a model."""

    task = TextField(required=False, max_length=40, help_text="Such as classification or regression.")
    description = LongTextField(required=False, help_text="The model card, in Markdown.")
    tags = JsonField(required=False, example='{"team": "growth"}', help_text="Texts by name.")


class ModelForm(DescriptionForm):
    """A new model."""

    name = TextField(
        max_length=100, help_text="1 to 100 of A-Z, a-z, 0-9, '.', '_', '-'. It is in the model's addresses."
    )
    field_order = ("name", "task", "description", "tags")


class BestForm(ReasonForm):
    """By which metric the best version is chosen."""

    metric = TextField(help_text="Such as accuracy. Measured values go before reported ones.")
    direction = ChoiceField(choices=[(one, {"max": "Highest", "min": "Lowest"}[one]) for one in DIRECTIONS])
    field_order = ("metric", "direction", "reason")


class AliasForm(PageForm):
    """A name for a version."""

    name = TextField(max_length=100, label="Alias", help_text="Such as champion. It routes no traffic by itself.")
    version = ChoiceField(help_text="The version it names from now on.")

    def __init__(self, *args: Any, numbers: list[int], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["version"]
        if isinstance(field, forms.ChoiceField):
            field.choices = [*((str(one), f"v{one}") for one in numbers), ("", "None: remove the alias")]
        field.required = False


@admin.register(RegisteredModel, site=tenant_site)
class ModelPages(ScopedPages):
    """The tenant's models."""

    add = Scope.WRITE
    add_title = "Make a model"
    none_yet = "A model is a name under which versions are kept; uploading a version makes one, too."
    nav = Nav("Registry", "deployed_code", 10, "Models")
    list_display: tuple[str, ...] = ("name", "task", "serves", "best", "versions", "size", "changed")
    changed = moment_column("Changed", "updated_at")
    list_filter = (("task", KnownValues),)
    search_fields = ("name", "description")
    actions_detail = (
        "upload",
        "edit",
        {
            "title": "Serving",
            "icon": "swap_horiz",
            "items": ["deploy", "activate_best", "rollback", "deactivate", "set_alias"],
        },
        "remove",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[RegisteredModel]:
        found = RegisteredModel.objects.with_standing()
        return found.prefetch_related(Prefetch("deployment__activation__version", _only_sizes()))

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """The list, its rows with what one query finds for all of them."""
        changelist = super().get_changelist_instance(request)
        self.complete(list(changelist.result_list))
        return changelist

    def complete(self, models: list[RegisteredModel]) -> None:
        """Give the models of a page of the list what their columns show."""
        best = best_metrics([model.pk for model in models])
        for model in models:
            model.best_metric = best.get(model.pk)  # type: ignore[attr-defined]

    @column("Serves", tones={"yes": "success"})
    def serves(self, model: RegisteredModel) -> tuple[str, str]:
        number = _serving_number(model)
        return ("yes", f"v{number}") if number else ("nothing", "Nothing")

    @column("Best")
    def best(self, model: RegisteredModel) -> str:
        best: Best | None = getattr(model, "best_metric", None)
        return f"{best.metric} {number(best.value, 4)}" if best else ""

    @column("Size")
    def size(self, model: RegisteredModel) -> str:
        serving = _serving_version(model)
        return size(serving.bundle.size_bytes) if serving else ""

    @column("Versions", ordering="version_count")
    def versions(self, model: RegisteredModel) -> int:
        return int(getattr(model, "version_count", 0))

    def parts(self, request: HttpRequest, obj: RegisteredModel) -> list[Part]:
        activations = list(Activation.objects.filter(model=obj).select_related("version")[: SHOWN_ACTIVATIONS + 1])
        is_whole = "history" in request.GET or len(activations) <= SHOWN_ACTIVATIONS
        if "history" in request.GET:
            activations = list(Activation.objects.filter(model=obj).select_related("version")[:MOST_ACTIVATIONS])
        newest = activations[0] if activations else None
        versions = list(ModelVersion.objects.with_standing().light().filter(model=obj).order_by("-number")[:PLOTTED])
        table = versions_table(versions[:SHOWN_VERSIONS], NO_VERSIONS, is_of_one_model=True)
        all_versions = f"{page_url(ModelVersion, 'changelist')}?{urlencode({'model__id__exact': str(obj.pk)})}"
        history = activations if is_whole else activations[:SHOWN_ACTIVATIONS]
        return [
            Part("Model", Facts(self.facts(obj))),
            serving_part(obj, newest),
            Part("Model card", Card(obj.description, "Edit the model to describe what it is for, in Markdown.")),
            metrics_over_versions_part(versions),
            activations_part(history, None if is_whole else ("?history", "The whole history")),
            _aliases_part(obj),
            Part("Versions", table, (all_versions, f"All {self.versions(obj)} versions"), is_wide=True),
        ]

    def facts(self, model: RegisteredModel) -> dict[str, Any]:
        """What is known of a model."""
        return {
            "Name": model.name,
            "Task": model.task,
            "Tags": tags(model.tags),
            "Made": when(model.created_at),
        }

    def applies(self, action: str, obj: RegisteredModel) -> bool:
        return action not in ("deactivate", "rollback") or _has_served(obj)

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        self.require_add(request)

        def act(said: dict[str, Any]) -> str:
            model = services.create_model(actor=self.caller(request).name, **_checked(said))
            return f"{model.name} was made. Upload its first version."

        question = Question("Make a model", "Make", says=["A name under which versions are kept."])
        return self.ask(request, question, answers(ModelForm, request), act, back=self.url("changelist"))

    @object_action("Upload a version", "upload", Scope.WRITE, "upload", is_main=True)
    def upload(self, request: HttpRequest, object_id: str) -> HttpResponse:
        query = urlencode({"model": self.found(request, object_id).name})
        return HttpResponseRedirect(f"{page_url(ModelVersion, 'add')}?{query}")

    @object_action("Edit", "edit", Scope.WRITE, "edit")
    def edit(self, request: HttpRequest, object_id: str) -> HttpResponse:
        model: RegisteredModel = self.found(request, object_id)

        def act(said: dict[str, Any]) -> str:
            services.change_model(model=model, actor=self.caller(request).name, **_checked(said))
            return f"{model.name} was changed."

        initial = {"task": model.task, "description": model.description, "tags": model.tags}
        form = answers(DescriptionForm, request, initial=initial)
        return self._ask(request, model, Question(f"Edit {model.name}", "Save"), form, act)

    @object_action("Activate the best", "emoji_events", Scope.ADMIN, "activate-best")
    def activate_best(self, request: HttpRequest, object_id: str) -> HttpResponse:
        model: RegisteredModel = self.found(request, object_id)

        def act(said: dict[str, Any]) -> str:
            choice, _ = services.activate_best(actor=self.caller(request).name, model=model, **said)
            return choice.explanation

        says = ["Its ready versions are compared by one metric, and the best of them serves from then on."]
        question = Question(f"Activate the best version of {model.name}", "Activate", says)
        return self._ask(request, model, question, answers(BestForm, request), act)

    @object_action("Route requests", "call_split", Scope.ADMIN, "deployment")
    def deploy(self, request: HttpRequest, object_id: str) -> HttpResponse:
        model: RegisteredModel = self.found(request, object_id)
        _, routing = deployments.state_of(model)

        def act(said: dict[str, Any]) -> str:
            deployments.change_deployment(model=model, actor=self.caller(request).name, **changes_of(said))
            return f"The deployment of {model.name} is changed."

        numbers = list(model.versions.ready().order_by("-number").values_list("number", flat=True))
        form = answers(DeploymentForm, request, numbers=numbers, initial=initial_of(routing))
        says = ["The versions are in memory before requests go to them. Each change is one more entry in the history."]
        question = Question(f"Where do the requests for {model.name} go?", "Change", says)
        return self._ask(request, model, question, form, act, routing_part(routing))

    @object_action("Roll back", "undo", Scope.ADMIN, "rollback")
    def rollback(self, request: HttpRequest, object_id: str) -> HttpResponse:
        model: RegisteredModel = self.found(request, object_id)

        def act(said: dict[str, Any]) -> str:
            activation = services.rollback(model=model, actor=self.caller(request).name, **said)
            return f"v{activation.version_number} of {model.name} serves again."

        question, compared = _rollback_question(model)
        return self._ask(request, model, question, answers(ReasonForm, request), act, compared)

    @object_action("Deactivate", "stop_circle", Scope.ADMIN, "deactivate")
    def deactivate(self, request: HttpRequest, object_id: str) -> HttpResponse:
        model: RegisteredModel = self.found(request, object_id)

        def act(said: dict[str, Any]) -> str:
            services.deactivate(model=model, actor=self.caller(request).name, **said)
            return f"Nothing serves for {model.name} now."

        says = ["Predictions by this model are refused from then on, until a version is activated again."]
        question = Question(f"Take {model.name} out of service?", "Deactivate", says)
        return self._ask(request, model, question, answers(ReasonForm, request), act)

    @object_action("Set an alias", "label", Scope.ADMIN, "alias")
    def set_alias(self, request: HttpRequest, object_id: str) -> HttpResponse:
        model: RegisteredModel = self.found(request, object_id)
        versions = {one.number: one for one in model.versions.order_by("-number").select_related("model")}

        def act(said: dict[str, Any]) -> str:
            return self._name(request, model, said["name"], versions.get(int(said["version"] or 0)))

        form = answers(AliasForm, request, numbers=list(versions))
        return self._ask(request, model, Question(f"Name a version of {model.name}", "Set the alias"), form, act)

    def _name(self, request: HttpRequest, model: RegisteredModel, name: str, version: ModelVersion | None) -> str:
        actor = self.caller(request).name
        if version is not None:
            services.set_alias(version=version, name=name, actor=actor)
            return f"{model.name}@{name} is v{version.number} now."
        for alias in Alias.objects.select_related("model", "version").filter(model=model, name=name):
            services.delete_alias(alias=alias, actor=actor)
        return f"There is no {model.name}@{name} any more."

    @object_action("Delete", "delete", Scope.ADMIN, "remove")
    def remove(self, request: HttpRequest, object_id: str) -> HttpResponse:
        model: RegisteredModel = self.found(request, object_id)

        def act(said: dict[str, Any]) -> str:
            services.delete_model(model=model, actor=self.caller(request).name)
            return f"{model.name} was deleted."

        says = [
            f"Its {self.versions(model)} versions, its aliases and the history of what served go with it, for good.",
            "A model that an open job uses is not deleted.",
        ]
        serving = _serving_number(model)
        hindered = [f"v{serving} serves: deactivate the model first."] if serving else []
        question = Question(f"Delete the model {model.name}?", "Delete", says, is_final=True, hindered=hindered)
        form = answers(PageForm, request)
        return self.ask(request, question, form, act, about=model, back=self.url("changelist"))

    def _ask(
        self,
        request: HttpRequest,
        model: RegisteredModel,
        question: Question,
        form: Any,
        act: Any,
        beside: Part | None = None,
    ) -> HttpResponse:
        back, parts = self.url("change", model.pk), [beside] if beside else []
        return self.ask(request, question, form, act, about=model, back=back, parts=parts)


def _only_sizes() -> QuerySet[ModelVersion]:
    return ModelVersion.objects.select_related("bundle").only("model_id", "number", "bundle__size_bytes")


def _serving_version(model: RegisteredModel) -> ModelVersion | None:
    try:
        return model.deployment.version
    except Deployment.DoesNotExist:
        return None


def _has_served(model: RegisteredModel) -> bool:
    return hasattr(model, "deployment")


def _rollback_question(model: RegisteredModel) -> tuple[Question, Part | None]:
    """What a rollback would bring back, and how that compares."""
    title = f"Roll {model.name} back?"
    try:
        before = services.served_before(model, deployments.state_of(model)[1])
    except Conflict as error:
        return Question(title, "Roll back", hindered=[error.message]), None
    version = model.versions.select_related("model", "bundle").filter(number=before.version or 0).first()
    says = [f"v{before.version}, which served before, serves again. Nothing is deleted."]
    if len(before.split) > 1:
        says = ["The split that served before serves again. Nothing is deleted."]
    return Question(title, "Roll back", says), comparison_part(version, serving_version(version)) if version else None


def _serving_number(model: RegisteredModel) -> int | None:
    """The number of the version that serves; the model comes with its standing."""
    try:
        activation = model.deployment.activation
    except Deployment.DoesNotExist:
        return None
    return activation.version_number if activation.version_id else None


def _aliases_part(model: RegisteredModel) -> Part:
    rows: list[tuple[SafeString, SafeString, Any]] = [
        (label(alias.name), version_link(alias.version, f"v{alias.version.number}"), when(alias.updated_at))
        for alias in model.aliases.select_related("version__model")
    ]
    return Part("Aliases", Table(("Alias", "Version", "Set"), rows, "No version has a name of its own."))


def _checked(said: dict[str, Any]) -> dict[str, Any]:
    """What a form said of a model, its tags being what tags may be."""
    return said | {"tags": dict(parse_metadata({"tags": said["tags"] or {}}).tags)}
