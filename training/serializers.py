"""Training's JSON."""

from datetime import datetime
from typing import Any

from drf_spectacular.utils import extend_schema_field
from pydantic import BaseModel
from rest_framework import serializers

from tenants.job_api import JobErrorSerializer, ProgressSerializer
from tenants.models import JobState
from tenants.serializers import NameField, Strict
from training.models import Dataset, DatasetState, DatasetVersion, Purpose, Run, RunMetric
from training.run_requests import ActivateIf, RunRequest, Validation
from training.search_requests import MOST_TRIALS, SearchPlan, SearchRequest
from training.searching import best_of


class DatasetUploadSerializer(Strict):
    """A multipart upload. file: CSV in UTF-8 with a header, JSON Lines with a flat object a line, or Parquet."""

    name = NameField()
    file = serializers.FileField(allow_empty_file=True)


class DatasetSerializer(serializers.ModelSerializer[Dataset]):
    """A dataset with its newest version. versions: how many it has."""

    versions = serializers.IntegerField(source="version_count", read_only=True)
    digest = serializers.CharField(source="newest_digest", read_only=True)

    class Meta:
        model = Dataset
        fields = ("name", "versions", "digest", "created_at")


class DatasetVersionSummarySerializer(serializers.ModelSerializer[DatasetVersion]):
    """A version of a dataset in a list."""

    name = serializers.CharField(source="dataset.name", read_only=True)
    state = serializers.ChoiceField(choices=DatasetState.choices, read_only=True)

    class Meta:
        model = DatasetVersion
        fields: tuple[str, ...] = (
            "name",
            "digest",
            "state",
            "rejection_reason",
            "format",
            "file_name",
            "row_count",
            "size_bytes",
            "created_by",
            "created_at",
        )


class DatasetVersionSerializer(DatasetVersionSummarySerializer):
    """A version of a dataset. columns: their names, in the table's order."""

    columns = serializers.ListField(child=serializers.CharField(), read_only=True)

    class Meta(DatasetVersionSummarySerializer.Meta):
        fields = (*DatasetVersionSummarySerializer.Meta.fields, "columns")


class PreviewSerializer(serializers.Serializer[Any]):
    """The first rows of a table as text. is_whole: there are no others. columns_left_out: of a very wide table."""

    columns = serializers.ListField(child=serializers.CharField())
    rows = serializers.ListField(child=serializers.ListField(child=serializers.CharField(allow_blank=True)))
    is_whole = serializers.BooleanField()
    columns_left_out = serializers.IntegerField()


class TrainerSerializer(serializers.Serializer[Any]):
    """A trainer. params: the JSON Schema of its parameters. metrics: what its runs measure."""

    name = serializers.CharField()
    title = serializers.CharField()
    task = serializers.ChoiceField(choices=["classification", "regression", "detection"])
    params = serializers.DictField()
    metrics = serializers.ListField(child=serializers.CharField())


class TrainersSerializer(serializers.Serializer[Any]):
    """All trainers; there is no further page."""

    results = TrainerSerializer(many=True)
    next = serializers.CharField(allow_null=True)


def described(kind: type[BaseModel]) -> dict[str, Any]:
    """A pydantic model's JSON Schema in the words of OpenAPI 3.0, which has `nullable` instead of a null type."""
    schema = kind.model_json_schema(ref_template="{model}")
    told: dict[str, Any] = _in_words(schema, schema.get("$defs", {}))
    return told


def _in_words(told: Any, others: dict[str, Any]) -> Any:
    if isinstance(told, list):
        return [_in_words(part, others) for part in told]
    if not isinstance(told, dict):
        return told
    if "$ref" in told:
        return _in_words(others[told["$ref"]], others)
    plain = {key: value for key, value in told.items() if key not in ("$defs", "title", "description", "anyOf")}
    plain = {key: value for key, value in plain.items() if not (key == "default" and value is None)}
    if "properties" in plain:
        plain["properties"] = {name: _in_words(part, others) for name, part in plain["properties"].items()}
    for key in ("items", "additionalProperties"):
        if key in plain:
            plain[key] = _in_words(plain[key], others)
    kinds = [_in_words(part, others) for part in told.get("anyOf", ()) if part.get("type") != "null"]
    if not kinds:
        return plain
    nullable = {"nullable": True} if len(kinds) < len(told["anyOf"]) else {}
    return plain | (kinds[0] if len(kinds) == 1 else {"oneOf": kinds}) | nullable


@extend_schema_field(described(Validation))
class ValidationField(serializers.DictField):
    """How a run's model is judged; `run_requests.check` reads it."""


@extend_schema_field(described(ActivateIf))
class ActivateIfField(serializers.DictField):
    """By what a run's version must beat the one that serves; `run_requests.check` reads it."""


class RunRequestSerializer(Strict):
    """A run to be carried out. digest: of a version of the dataset, the newest one if it is left out.

    library_set: the libraries that a custom trainer's program needs.
    """

    trainer = serializers.CharField(max_length=100)
    dataset = serializers.CharField(max_length=100)
    digest = serializers.CharField(max_length=64, required=False)
    target = serializers.CharField(max_length=250, trim_whitespace=False)
    params = serializers.DictField(required=False, help_text="As the trainer's own schema in `trainers` has them.")
    validation = ValidationField(required=False)
    model = NameField()
    activate_if = ActivateIfField(required=False, allow_null=True, allow_empty=False)
    experiment = serializers.CharField(max_length=250, required=False)
    library_set = serializers.CharField(max_length=60, required=False)

    def run_request(self) -> RunRequest:
        """The request as the service takes it."""
        return RunRequest(**self.validated_data)


class CustomRunSerializer(Strict):
    """A run of a program of one's own. run: its JSON, with the trainer `custom`. code: a zip with `train.py`."""

    run = serializers.JSONField(help_text="As a run's JSON body.")
    code = serializers.FileField()


class SearchRequestSerializer(Strict):
    """A search to be carried out. params: what all trials share. space: a list of values, or a range, a parameter.

    The other fields of a run hold for every trial, and `activate_if` for the version of the best one.
    """

    trainer = serializers.CharField(max_length=100)
    dataset = serializers.CharField(max_length=100)
    digest = serializers.CharField(max_length=64, required=False)
    target = serializers.CharField(max_length=250, trim_whitespace=False)
    params = serializers.DictField(required=False)
    validation = ValidationField(required=False)
    model = NameField()
    activate_if = ActivateIfField(required=False, allow_null=True, allow_empty=False)
    experiment = serializers.CharField(max_length=250, required=False)
    space = serializers.DictField()
    method = serializers.ChoiceField(choices=["grid", "random", "bayes"], required=False)
    trials = serializers.IntegerField(min_value=1, max_value=MOST_TRIALS, required=False)
    metric = serializers.CharField(max_length=100)
    direction = serializers.ChoiceField(choices=["max", "min"], required=False)
    seed = serializers.IntegerField(min_value=0, max_value=2**32 - 1, required=False)
    prune = serializers.BooleanField(required=False)
    parallel = serializers.IntegerField(min_value=0, max_value=100, required=False)

    def search_request(self) -> SearchRequest:
        """The request as the service takes it."""
        said = dict(self.validated_data)
        plan = {name: said.pop(name) for name in SearchPlan.model_fields if name in said}
        space = said.pop("space")
        return SearchRequest(RunRequest(**said), space, plan)


class EvaluationRequestSerializer(Strict):
    """A version to be measured. digest: of a version of the dataset, the newest one if it is left out."""

    dataset = serializers.CharField(max_length=100)
    digest = serializers.CharField(max_length=64, required=False, default="")
    target = serializers.CharField(max_length=250, trim_whitespace=False)


class RunSerializer(serializers.ModelSerializer[Run]):
    """A run: what every job has, what it was asked to be, and what came of it. An external run has no job.

    metrics: measured here. metrics_reported: by a custom trainer's own program. parent_id: the search of a trial.
    """

    kind = serializers.CharField(source="job.kind", default="external", read_only=True)
    state = serializers.ChoiceField(choices=JobState.choices, read_only=True)
    progress = ProgressSerializer(source="job", allow_null=True, read_only=True)
    error = serializers.SerializerMethodField()
    started_at = serializers.SerializerMethodField()
    finished_at = serializers.SerializerMethodField()
    attempts = serializers.IntegerField(source="job.attempts", default=0, read_only=True)
    experiment = serializers.CharField(source="experiment.name", default=None, allow_null=True, read_only=True)
    dataset = serializers.CharField(
        source="dataset_version.dataset.name", default=None, allow_null=True, read_only=True
    )
    digest = serializers.CharField(source="dataset_version.digest", default=None, allow_null=True, read_only=True)
    model = serializers.CharField(source="model_name", read_only=True)
    params = serializers.DictField(read_only=True)
    validation = serializers.DictField(read_only=True)
    activate_if = serializers.DictField(allow_null=True, read_only=True)
    activation_decision = serializers.DictField(allow_null=True, read_only=True)
    metrics = serializers.DictField(child=serializers.FloatField(), read_only=True)
    metrics_reported = serializers.DictField(child=serializers.FloatField(), read_only=True)
    parent_id = serializers.UUIDField(allow_null=True, read_only=True)
    search = serializers.DictField(allow_null=True, read_only=True)
    libraries = serializers.DictField(child=serializers.CharField(), read_only=True)
    tags = serializers.DictField(child=serializers.CharField(), read_only=True)
    version = serializers.IntegerField(source="version.number", default=None, allow_null=True, read_only=True)

    class Meta:
        model = Run
        fields: tuple[str, ...] = (
            "id",
            "kind",
            "purpose",
            "name",
            "state",
            "progress",
            "error",
            "created_at",
            "started_at",
            "finished_at",
            "attempts",
            "parent_id",
            "search",
            "experiment",
            "trainer",
            "dataset",
            "digest",
            "target",
            "params",
            "validation",
            "model",
            "version",
            "activate_if",
            "activation_decision",
            "metrics",
            "metrics_reported",
            "code_digest",
            "libraries",
            "tags",
            "duration_s",
            "peak_memory_bytes",
            "created_by",
        )

    @extend_schema_field(serializers.DateTimeField(allow_null=True))
    def get_started_at(self, run: Run) -> datetime | None:
        return run.job.started_at if run.job else run.started_at

    @extend_schema_field(serializers.DateTimeField(allow_null=True))
    def get_finished_at(self, run: Run) -> datetime | None:
        return run.job.finished_at if run.job else run.finished_at

    @extend_schema_field(JobErrorSerializer(allow_null=True))
    def get_error(self, run: Run) -> dict[str, Any] | None:
        return dict(JobErrorSerializer(run.job).data) if run.job and run.job.error_code else None


class TrialSerializer(serializers.ModelSerializer[Run]):
    """A trial of a search. value: of the search's metric. is_pruned: it was given up, since most trials were better."""

    number = serializers.IntegerField(source="search.number")
    state = serializers.ChoiceField(choices=JobState.choices)
    params = serializers.DictField(source="search.params", default=dict)
    value = serializers.FloatField(source="search.value", default=None, allow_null=True)
    is_pruned = serializers.BooleanField(source="search.pruned", default=False)
    error = serializers.CharField(source="job.error_message", default="")

    class Meta:
        model = Run
        fields = ("id", "number", "state", "params", "value", "is_pruned", "duration_s", "error")


class SearchSerializer(RunSerializer):
    """A search: a run with its trials. best: the number of the best trial that has ended."""

    trials = serializers.SerializerMethodField()
    best = serializers.SerializerMethodField()

    class Meta(RunSerializer.Meta):
        fields = (*RunSerializer.Meta.fields, "trials", "best")

    @extend_schema_field(TrialSerializer(many=True))
    def get_trials(self, run: Run) -> list[dict[str, Any]]:
        return list(TrialSerializer(_trials(run), many=True).data)

    @extend_schema_field(serializers.IntegerField(allow_null=True))
    def get_best(self, run: Run) -> int | None:
        best = best_of(_trials(run), run.search or {"direction": "max"})
        return (best.search or {})["number"] if best else None


def _trials(run: Run) -> list[Run]:
    trials = run.trials.filter(purpose=Purpose.TRIAL).select_related("job").defer("log", "evaluation", "inputs")
    return list(trials.order_by("created_at", "pk"))


class MetricSerializer(serializers.ModelSerializer[RunMetric]):
    """One value of a metric's history."""

    class Meta:
        model = RunMetric
        fields = ("key", "value", "step", "at")


class LogSerializer(serializers.Serializer[Any]):
    """A run's log. is_cut: its oldest lines were dropped."""

    lines = serializers.ListField(child=serializers.CharField())
    is_cut = serializers.BooleanField()


class ComparedValuesSerializer(serializers.Serializer[Any]):
    """One parameter or metric of several runs. values: in the order of `runs`, null where a run has none."""

    name = serializers.CharField()
    values = serializers.ListField(child=serializers.JSONField(allow_null=True))
    is_same = serializers.BooleanField()


class CurveSerializer(serializers.Serializer[Any]):
    """A metric's history in one run: values by step, thinned out where there are very many."""

    run = serializers.UUIDField()
    key = serializers.CharField()
    steps = serializers.ListField(child=serializers.IntegerField())
    values = serializers.ListField(child=serializers.FloatField())


class ConfusionSerializer(serializers.Serializer[Any]):
    """How often a run's model took each class (a row) for each class (a column)."""

    run = serializers.UUIDField()
    labels = serializers.ListField(child=serializers.JSONField())
    counts = serializers.ListField(child=serializers.ListField(child=serializers.IntegerField()))


class ComparisonSerializer(serializers.Serializer[Any]):
    """Runs side by side."""

    runs = RunSerializer(many=True)
    params = ComparedValuesSerializer(many=True)
    metrics = ComparedValuesSerializer(many=True)
    curves = CurveSerializer(many=True)
    confusions = ConfusionSerializer(many=True)


class ExperimentSerializer(Strict):
    """An experiment. runs: how many it has."""

    name = serializers.CharField(max_length=250)
    runs = serializers.IntegerField(source="run_count", read_only=True, default=0)
    created_at = serializers.DateTimeField(read_only=True)
