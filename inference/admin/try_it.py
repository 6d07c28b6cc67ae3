"""Trying a version by hand: a form made from its signature, the answer, and the same request for other tools."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from django import forms
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from common.errors import PlatformError
from inference import bodies, lanes
from inference.admin.samples import sample_row
from inference.admin.snippets import snippets
from inference.predictions import deadline_of, encoded
from inference.routing import route
from models_registry.admin.versions import VersionPages
from models_registry.models import ModelVersion
from runtimes.errors import InvalidSignature
from runtimes.signature import STRING, Field, Signature
from tenants.models import Scope
from tenants.site.forms import JsonField, PageForm, TextField
from tenants.site.pages import Question, object_action
from tenants.site.parts import Facts, Part, Table, Text
from tenants.site.plots import bars
from tenants.site.sites import tenant_site

MOST_FIELDS = 60  # of a form; more columns than that are written as JSON
MOST_ROWS = 20
ROW = "row"


class TryForm(PageForm):
    """A field a column, or one field with JSON for everything else."""

    def __init__(self, *args: Any, version: ModelVersion, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.signature = Signature.from_json(version.signature)
        row = sample_row(self.signature, version.metadata.get("input_example"))
        if self.by_columns:
            for number, field in enumerate(self.signature.inputs):
                self.fields[f"column-{number}"] = _column_field(field, row[field.name])
        else:
            text = json.dumps(row, ensure_ascii=False)
            self.fields[ROW] = JsonField(initial=row, example=text, help_text=_what_is_taken(self.signature))

    @property
    def by_columns(self) -> bool:
        """Whether there is a field for each column."""
        return self.signature.layout == "columns" and len(self.signature.inputs) <= MOST_FIELDS

    def body(self) -> dict[str, Any]:
        """The predict body of what was written."""
        if not self.by_columns:
            row = self.cleaned_data[ROW]
            return {"dataframe_records": [row]} if isinstance(row, Mapping) else {"instances": [row]}
        said = {field.name: self.cleaned_data[f"column-{number}"] for number, field in enumerate(self.signature.inputs)}
        return {"dataframe_records": [{name: None if value == "" else value for name, value in said.items()}]}


@dataclass(frozen=True)
class Tried:
    """What came of it. seconds: from the checked request to the answer."""

    answer: Mapping[str, Any]
    seconds: float


class TriedVersionPages(VersionPages):
    """The versions' pages, with a page to try one."""

    actions_detail = ("activate", "try_it", *(name for name in VersionPages.actions_detail if name != "activate"))

    def applies(self, action: str, obj: ModelVersion) -> bool:
        return obj.is_ready if action == "try_it" else super().applies(action, obj)

    @object_action("Try it", "experiment", Scope.PREDICT, "try")
    def try_it(self, request: HttpRequest, object_id: str) -> HttpResponse:
        version: ModelVersion = self.found(request, object_id)
        if not version.is_ready:
            said = f"{version} is {version.get_state_display().lower()}: only ready versions predict."
            return self._cannot_be_tried(request, version, said)
        try:
            form = TryForm(request.POST or None, version=version)
        except InvalidSignature as error:
            return self._cannot_be_tried(request, version, f"Its signature cannot be read: {error.message}")
        tried = _tried(form, version) if request.method == "POST" and form.is_valid() else None
        question = Question(f"Try {version}", "Predict", ["One row goes to this version, whether it serves or not."])
        return self.page(
            request,
            "admin/try.html",
            f"Try {version}",
            about=version,
            question=question,
            form=form,
            back=self.url("change", version.pk),
            parts=[*_answer_parts(tried), *_snippet_parts(request, version, form)],
        )

    def _cannot_be_tried(self, request: HttpRequest, version: ModelVersion, why: str) -> HttpResponse:
        part = Part("Try it", Table((), (), why))
        return self.page(request, "admin/detail.html", f"Try {version}", about=version, parts=[part])


tenant_site.unregister(ModelVersion)
tenant_site.register(ModelVersion, TriedVersionPages)


def _column_field(field: Field, value: Any) -> forms.Field:
    words = f"{field.dtype}{', may be left empty' if field.nullable else ''}"
    named = {"label": field.name, "initial": value, "help_text": words}
    if field.dtype == STRING:
        return TextField(required=False, **named)
    kinds: dict[str, type[forms.Field]] = {"f": forms.FloatField, "i": forms.IntegerField, "u": forms.IntegerField}
    kind = kinds.get(np.dtype(field.dtype).kind, JsonField)
    return kind(required=not field.nullable, widget=TextField.widget, **named)


def _what_is_taken(signature: Signature) -> str:
    if signature.layout == "columns":
        return f"One row as a JSON object with {len(signature.inputs)} columns."
    sizes = " x ".join("any" if size == -1 else str(size) for size in signature.inputs[0].shape[1:])
    return f"One row as a JSON list of {sizes or 'one'} numbers ({signature.inputs[0].dtype})."


def _tried(form: TryForm, version: ModelVersion) -> Tried | None:
    """The version's answer; None, with the reason in the form, when there is none."""
    try:
        body = bodies.parse(orjson.dumps(form.body() | {"version": version.number}))
        body = {**body, "probabilities": bool(form.signature.classes)}
        started = time.perf_counter()
        answer = lanes.answer(route(version.model.name, body), body, deadline_of(body, settings.PREDICTION_DEADLINE_S))
        seconds = time.perf_counter() - started
    except PlatformError as error:
        form.show(error)
        return None
    return Tried(json.loads(encoded(answer)), seconds)


def _answer_parts(tried: Tried | None) -> list[Part]:
    if tried is None:
        return []
    answer = tried.answer
    predictions = answer["predictions"]
    named = predictions if isinstance(predictions, Mapping) else {"prediction": predictions}
    facts = {name: _shown(values) for name, values in named.items()} | {"Answered in": f"{tried.seconds * 1e3:.1f} ms"}
    parts = [Part("Answer", Facts(facts))]
    if answer.get("probabilities"):
        pairs = list(zip(map(str, answer.get("classes") or []), answer["probabilities"][0], strict=False))
        pairs.sort(key=lambda pair: -pair[1])
        parts.append(Part("Probabilities", bars(pairs[:MOST_ROWS], title="Probabilities of the classes", most=1.0)))
    return parts


def _shown(values: Any) -> str:
    """The first row of an output; of a long one, the beginning."""
    first = values[0] if isinstance(values, list) and values else values
    text = json.dumps(first, ensure_ascii=False) if isinstance(first, list | dict) else str(first)
    return text if len(text) <= 400 else f"{text[:400]} … ({np.size(first)} values)"


def _snippet_parts(request: HttpRequest, version: ModelVersion, form: TryForm) -> list[Part]:
    sample = sample_row(form.signature, version.metadata.get("input_example"))
    body: dict[str, Any] = {"dataframe_records": [sample]} if isinstance(sample, dict) else {"instances": [sample]}
    if form.is_bound and form.is_valid():
        body = form.body()
    base_url = request.build_absolute_uri(reverse("predict-default")).removesuffix("/api/v1/predict")
    return [
        Part(f"The same with {tool}", Text(text, can_copy=True), is_wide=True)
        for tool, text in snippets(base_url, version.model.name, body, form.signature)
    ]
