"""Rows of a busy tenant, written into its tables at once: what takes weeks to come together otherwise.

Only for measuring and looking at pages: nothing stands behind these rows, so no version predicts and no file downloads.
Import it once Django is set up.
"""

import io
import random
import time
import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django.utils import timezone

from documents.models import Document, DocumentPage
from inference import traffic
from inference.models import BatchJob
from inference.queued.valkey import valkey
from models_registry.blobs import IncomingFile, store_bundle
from models_registry.models import Activation, Alias, Bundle, Deployment, ModelVersion, RegisteredModel
from runtimes.measured import Confusion, Evaluation, Histogram, Importance, Roc
from runtimes.profiles import ColumnProfile, Counted, Profile, Quantile, Sample
from tenants.journal.models import AuditEvent
from tenants.models import ApiToken, Job, JobState, Membership, Role, Tenant, User
from tenants.scope import tenant_scope
from training.models import Dataset, DatasetVersion, Purpose, Run, RunKind, RunMetric, path_of

COLUMNS = 30
BUSY = "churn"  # the model with most of the versions
LONG = ("a-name-as-long-as-names-may-be-" * 4)[:100]
STATES = (
    JobState.SUCCEEDED,
    JobState.SUCCEEDED,
    JobState.FAILED,
    JobState.RUNNING,
    JobState.QUEUED,
    JobState.CANCELLED,
)
CARD = "## What it is for\n\nSays who is likely to leave.\n\n" + "- A line of its card.\n" * 40


def fill(tenant: Tenant, *, versions: int = 1000, runs: int = 500, others: int = 100) -> None:
    """Give a tenant so many versions and runs, and `others` or a multiple of everything else."""
    random.seed(7)
    with tenant_scope(tenant):
        bundle = store_bundle(
            [IncomingFile(f"part-{number}.bin", io.BytesIO(b"x" * number)) for number in range(1, 13)]
        )
        made = _versions(bundle, versions)
        _activations(made)
        datasets = _datasets(others)
        _runs(tenant, runs, datasets, made)
        _search(tenant, datasets, others)
        _batches(tenant, bundle, made, others)
        _documents(tenant, bundle, made, others)
        _people(tenant, others)
        _events(50 * others)
        _traffic(tenant, [BUSY, LONG, *(f"model-{number}" for number in range(40))])


def _versions(bundle: Bundle, count: int) -> list[ModelVersion]:
    """A model with three fifths of them, one with a long name, and two each for further models."""
    fields = [{"name": f"column_{n}", "dtype": "float64", "shape": [-1], "nullable": False} for n in range(COLUMNS)]
    output = {"name": "prediction", "dtype": "string", "shape": [-1], "nullable": False}
    signature = {"layout": "columns", "inputs": fields, "outputs": [output], "classes": ["stays", "leaves"]}
    names = [BUSY, LONG, *(f"model-{number}" for number in range(count // 5 - 1))]
    models = RegisteredModel.objects.bulk_create(
        RegisteredModel(name=name, task="classification", description=CARD, tags={"team": "growth"}) for name in names
    )
    numbered = [(models[0], number) for number in range(1, count * 3 // 5 + 1)]
    numbered += [(model, number) for model in models[1:] for number in (1, 2)]
    return ModelVersion.objects.bulk_create(
        ModelVersion(
            model=model,
            number=number,
            bundle=bundle,
            state="rejected" if number % 17 == 0 else "ready",
            rejection_reason="It could not be loaded: No module named 'acme_features'." if number % 17 == 0 else "",
            format="sklearn-pickle",
            task="classification",
            signature=signature,
            inspection={"type_name": "RandomForestClassifier", "memory_bytes": 9 << 20},
            compilation={"state": "compiled", "sentence": "It was compiled to ONNX.", "rows": 256, "one_row_us": 41},
            metadata={"input_example": [{f"column_{n}": 0.5 for n in range(COLUMNS)}]},
            metrics_reported={"accuracy": random.uniform(0.7, 0.99), "log_loss": random.uniform(0.1, 0.4)},
            metrics_measured={"f1": random.uniform(0.7, 0.9)},
            params={f"parameter_{n}": n for n in range(10)},
            tags={"team": "growth"},
            created_by="admin@acme.example",
        )
        for model, number in numbered[:count]
    )


def _activations(versions: Sequence[ModelVersion]) -> None:
    """A long history of the busy model, and something that serves for half of the others."""
    busy = [one for one in versions if one.model.name == BUSY]
    served = [(one, number) for number, one in enumerate(busy[:60], 1)]
    served += [(one, 1) for one in versions if one.number == 1 and one.model.name != BUSY][::2]
    activations = Activation.objects.bulk_create(
        Activation(
            model=version.model,
            number=number,
            version=version,
            version_number=version.number,
            reason="Better on last month's customers." if number % 2 else "",
            actor="admin@acme.example",
        )
        for version, number in served
    )
    newest = {one.model_id: one for one in activations}
    Deployment.objects.bulk_create(Deployment(model_id=model, activation=one) for model, one in newest.items())
    Alias.objects.bulk_create(Alias(model=one.model, name=f"alias-{one.number}", version=one) for one in busy[:30])


def _datasets(count: int) -> list[DatasetVersion]:
    table = "\n".join(",".join(["0.5"] * COLUMNS) for _ in range(5000)).encode()
    bundle = store_bundle([IncomingFile(path_of("csv"), io.BytesIO(table))])
    profile = _profile().model_dump(mode="json")
    datasets = Dataset.objects.bulk_create(Dataset(name=f"customers-{number}") for number in range(count))
    return DatasetVersion.objects.bulk_create(
        DatasetVersion(
            dataset=dataset,
            digest=uuid.uuid4().hex * 2,
            bundle=bundle,
            format="csv",
            file_name="customers.csv",
            columns=[column["name"] for column in profile["columns"]],
            row_count=5000,
            size_bytes=1 << 20,
            profile=profile,
            created_by="admin@acme.example",
        )
        for dataset in datasets
        for _ in range(1 if dataset.name != "customers-0" else count)
    )


def _profile() -> Profile:
    bins = [float(edge) for edge in range(21)]
    columns = [
        ColumnProfile(
            name=f"column_{n}",
            kind="number",
            missing=n,
            distinct=900,
            mean=10.0,
            std=5.0,
            quantiles=[Quantile(part=part / 4, value=5.0 * part) for part in range(5)],
            histogram=Histogram(edges=bins, counts=[random.randint(1, 500) for _ in bins[1:]]),
        )
        for n in range(COLUMNS)
    ]
    columns.append(
        ColumnProfile(name="left", kind="text", missing=0, distinct=2, top=[Counted(value="leaves", count=2000)])
    )
    names = [column.name for column in columns]
    sample = Sample(columns=names, rows=[["0.5"] * len(names) for _ in range(50)])
    return Profile(row_count=5000, names=names, columns=columns, sample=sample)


def _jobs(tenant: Tenant, kind: str, count: int, states: Sequence[JobState] = STATES) -> list[Job]:
    now = timezone.now()
    jobs = [Job(tenant=tenant, kind=kind, state=states[number % len(states)]) for number in range(count)]
    for number, job in enumerate(jobs):
        job.object_id, job.progress_percent, job.progress_stage = job.pk.hex, 40.0, "fitting"
        job.started_at = now - timedelta(minutes=number + 1)
        job.due_at = now + timedelta(days=30)  # no worker takes it up
        job.lease_until = now + timedelta(days=30) if job.state == JobState.RUNNING else None
        if job.state in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED):
            job.finished_at = now - timedelta(minutes=number)
        if job.state == JobState.FAILED:
            job.error_code, job.error_message = "model_error", "The model could not be fitted: the column age is empty."
    return Job.objects.bulk_create(jobs)


def _runs(tenant: Tenant, count: int, datasets: Sequence[DatasetVersion], versions: Sequence[ModelVersion]) -> None:
    jobs = _jobs(tenant, "training.run", count)
    runs = Run.objects.bulk_create(
        Run(
            id=job.pk,
            job=job,
            kind=RunKind.MANAGED,
            trainer="logistic_regression",
            target="left",
            model_name=BUSY,
            dataset_version=datasets[number % len(datasets)],
            version=versions[number % len(versions)] if job.state == JobState.SUCCEEDED else None,
            params={"C": 0.5, "max_iter": 200, "seed": number},
            validation={"kind": "holdout", "fraction": 0.2, "seed": 0},
            metrics={"accuracy": random.random(), "f1": random.random()} if job.state == JobState.SUCCEEDED else {},
            evaluation=_evaluation().model_dump(mode="json") if job.state == JobState.SUCCEEDED else None,
            log="2026-01-01 12:00:00 fitting\n" * 200,
            duration_s=3.2,
            created_by="admin@acme.example",
        )
        for number, job in enumerate(jobs)
    )
    now = timezone.now()
    RunMetric.objects.bulk_create(
        RunMetric(run=run, key=key, value=1 / (step + 1), step=step, at=now)
        for run in runs[:10]
        for key in ("loss", "val_loss", "accuracy")
        for step in range(400)
    )


def _evaluation() -> Evaluation:
    rates = [step / 100 for step in range(101)]
    return Evaluation(
        rows=1000,
        metrics={"accuracy": 0.9},
        confusion=Confusion(labels=["stays", "leaves"], counts=[[700, 60], [40, 200]]),
        roc=[Roc(label="leaves", false_rates=rates, true_rates=[rate**0.3 for rate in rates])],
        importance=[Importance(column=f"column_{n}", mean=1 / (n + 1), std=0.01) for n in range(COLUMNS)],
    )


def _search(tenant: Tenant, datasets: Sequence[DatasetVersion], count: int) -> None:
    """Searches, the first with many trials."""
    space = {"C": {"low": 0.001, "high": 10.0, "log": True}, "max_iter": {"low": 50, "high": 500}}
    told = {"method": "tpe", "trials": count, "space": space, "metric": "accuracy", "direction": "max"}
    common: dict[str, Any] = {
        "kind": RunKind.MANAGED,
        "trainer": "logistic_regression",
        "target": "left",
        "model_name": BUSY,
        "dataset_version": datasets[0],
    }
    jobs = _jobs(tenant, "training.search", count, (JobState.SUCCEEDED,))
    searches = Run.objects.bulk_create(
        Run(id=job.pk, job=job, purpose=Purpose.SEARCH, search=told, **common) for job in jobs
    )
    trials = _jobs(tenant, "training.run", count, (JobState.SUCCEEDED,))
    Run.objects.bulk_create(
        Run(
            id=job.pk,
            job=job,
            purpose=Purpose.TRIAL,
            parent=searches[0],
            duration_s=1.5,
            search={
                "number": number,
                "value": random.uniform(0.7, 0.95),
                "params": {"C": 10 ** random.uniform(-3, 1), "max_iter": random.randint(50, 500)},
            },
            **common,
        )
        for number, job in enumerate(trials)
    )


def _batches(tenant: Tenant, bundle: Bundle, versions: Sequence[ModelVersion], count: int) -> None:
    BatchJob.objects.bulk_create(
        BatchJob(
            id=job.pk,
            job=job,
            version=versions[0],
            model_name=BUSY,
            version_number=1,
            table=bundle,
            table_path="part-1.bin",
            format="csv",
            file_name="customers.csv" if number else f"{LONG}{LONG}.csv",
            row_count=10_000,
            result=bundle if job.state == JobState.SUCCEEDED else None,
        )
        for number, job in enumerate(_jobs(tenant, "inference.batch", count))
    )


def _documents(tenant: Tenant, bundle: Bundle, versions: Sequence[ModelVersion], count: int) -> None:
    jobs = _jobs(tenant, "documents.read", count)
    documents = Document.objects.bulk_create(
        Document(
            id=job.pk,
            job=job,
            title="The annual report" if number else (LONG + LONG)[:200],
            version=versions[0],
            model_name=BUSY,
            version_number=1,
            source=bundle,
            source_path="part-1.bin",
            file_name="report.pdf",
            media_type="application/pdf",
            dpi=150,
            min_score=0.5,
            page_total=count,
            page_count=count,
        )
        for number, job in enumerate(jobs)
    )
    DocumentPage.objects.bulk_create(
        DocumentPage(
            document=document,
            number=number,
            state=JobState.FAILED if number % 40 == 0 else JobState.SUCCEEDED,
            error_message="The page could not be drawn." if number % 40 == 0 else "",
            width_pt=595,
            height_pt=842,
            detection_count=number % 7,
            duration_s=0.4,
        )
        for document in documents
        for number in range(1, count + 1)
    )


def _people(tenant: Tenant, count: int) -> None:
    users = User.objects.bulk_create(
        User(email=f"user-{number}@{tenant.tenant_id}.example", name=f"User {number}") for number in range(count)
    )
    Membership.objects.bulk_create(Membership(tenant=tenant, user=user, role=Role.VIEWER) for user in users)
    for number in range(count):
        ApiToken.mint(name=f"token-{number}", tenant=tenant, scopes=["predict"])


def _events(count: int) -> None:
    AuditEvent.objects.bulk_create(
        AuditEvent(
            actor="admin@acme.example",
            action=("version.upload", "version.activate", "run.start")[number % 3],
            target=f"{BUSY} v{number}",
            detail={"reason": "Better on last month's customers."},
        )
        for number in range(count)
    )


def _traffic(tenant: Tenant, models: Sequence[str]) -> None:
    """A week of predictions, an hour at a time, and the last hour by the minute."""
    now = time.time()
    moments = [now - 3600 * hour for hour in range(1, 168)] + [now - 60 * minute for minute in range(60)]
    with valkey().pipeline(transaction=False) as pipeline:
        for moment in moments:
            buckets = [0, 0, random.randint(50, 400), random.randint(20, 90), *[random.randint(0, 9)] * 11]
            asked = traffic.Asked(sum(buckets) + 3, 3, 5000, buckets)
            traffic.write(pipeline, [(tenant.schema_name, random.choice(models), asked)], moment)
        pipeline.execute()
