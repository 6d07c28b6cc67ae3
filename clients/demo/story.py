"""The steps of the story, each checked: what comes out otherwise ends it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from clients.demo import artifacts, documents
from clients.demo.artifacts import Held, Table
from clients.demo.console import Console
from clients.demo.documents import DETECTOR
from clients.demo.platform import Operator, Refused, Tenant, answer_of

FOREST, TRAINED, DIGITS, HOSTILE = "breast-cancer", "breast-cancer-trained", "digits", "suspicious"


class Mismatch(Exception):
    """Something came out otherwise than it should."""


@dataclass
class Story:
    """Who takes part, and what became of it so far."""

    operator: Operator
    folder: Path
    console: Console
    acme: Tenant = field(init=False)
    globex: Tenant = field(init=False)
    tumours: Table = field(init=False)
    numerals: Table = field(init=False)
    logins: list[tuple[str, str]] = field(default_factory=list)
    summary: list[tuple[str, str, str, str, str]] = field(default_factory=list)


def tell(story: Story) -> int:
    """Tell the whole story; 0 if every step came out as it should."""
    story.folder.mkdir(parents=True, exist_ok=True)
    try:
        for step in STEPS:
            step(story)
    except (Mismatch, Refused, requests.RequestException, OSError) as error:
        story.console.failure(str(error))
        return 1
    _sum_up(story)
    return 0


def expect(holds: bool, otherwise: str) -> None:
    """Go on only if it holds.

    Raises:
        Mismatch: it does not.
    """
    if not holds:
        raise Mismatch(otherwise)


def make_tenants(story: Story) -> None:
    """The operator makes two tenants."""
    story.console.step("The operator makes the tenants acme and globex")
    email = story.operator.log_in()
    story.logins.append((f"{story.operator.url}/admin/", f"{email}, password in {story.operator.credentials}"))
    for tenant_id in ("acme", "globex"):
        tenant, admin = story.operator.tenant(tenant_id, tenant_id.title())
        setattr(story, tenant_id, tenant)
        if admin:
            kept = story.folder / f"{tenant_id}-admin.txt"
            kept.touch(mode=0o600)
            kept.write_text(f"{admin['email']}\n{admin['password']}\n")
        login = f"admin@{tenant_id}.example, password in {story.folder / f'{tenant_id}-admin.txt'}"
        story.logins.append((f"{tenant.base_url}/admin/", login))
        story.console.result(f"{tenant_id} is at {tenant.base_url}/ ({'new' if admin else 'known from before'})")


def upload_forests(story: Story) -> None:
    """acme uploads two versions of a scikit-learn pickle."""
    story.console.step("acme uploads a scikit-learn pickle, and a second version of it")
    story.tumours = artifacts.breast_cancer()
    story.acme.ensure_model(FOREST, "Malignant (0) or benign (1), from 30 measurements.")
    known = story.acme.versions(FOREST)
    for trees in (20, 100)[len(known) :]:
        content = artifacts.forest_pickle(story.tumours, trees)
        _upload(story, story.acme, FOREST, {"forest.pkl": content}, {"params": {"n_estimators": trees}})
    if len(known) >= 2:
        story.console.result(f"{len(known)} versions are there from before")


def upload_digits(story: Story) -> None:
    """globex uploads a torch state dict."""
    story.console.step("globex uploads a torch .pth: a state dict, with its architecture as metadata")
    story.numerals = artifacts.digits()
    story.globex.ensure_model(DIGITS, "Which digit an 8 by 8 picture shows.")
    if story.globex.versions(DIGITS):
        story.console.result("it is there from before")
        return
    metadata = {"architecture": artifacts.DIGITS_ARCHITECTURE, "labels": list(range(10))}
    _upload(story, story.globex, DIGITS, {"digits.pth": artifacts.digits_state_dict(story.numerals)}, metadata)


def activate_and_predict(story: Story) -> None:
    """Each tenant activates and predicts, in the request and through the queue."""
    for tenant, model, number, table in (
        (story.acme, FOREST, 1, story.tumours),
        (story.acme, FOREST, 2, story.tumours),
        (story.globex, DIGITS, 1, story.numerals),
    ):
        story.console.step(f"{tenant.tenant_id} activates {model} version {number} and asks it for predictions")
        version = tenant.versions(model)[number - 1]["number"]
        tenant.activate(model, version, "the demo")
        direct = _predict_direct(story, tenant, model, version, table.held)
        queued = _predict_queued(story, tenant, model, version, table.held)
        expect(direct == queued, "the answers in the request and through the queue differ")
        row = (tenant.tenant_id, model, str(version), "uploaded", f"{table.held.accuracy(direct):.3f}")
        story.summary = [kept for kept in story.summary if kept[:2] != row[:2]] + [row]


def train(story: Story) -> None:
    """acme trains a model on the platform."""
    story.console.step("acme uploads a data set and starts a training run")
    dataset = story.acme.upload("datasets", {"tumours.csv": story.tumours.csv("benign")}, name="tumours")
    story.console.result(f"data set tumours, digest {dataset['digest'][:12]}")
    run = story.acme.post(
        "runs",
        {
            "trainer": "random_forest_classifier",
            "dataset": "tumours",
            "target": "benign",
            "params": {"n_estimators": 150},
            "validation": {"kind": "holdout", "fraction": 0.2, "seed": 7},
            "model": TRAINED,
        },
    )
    ended = story.acme.watch(f"runs/{run['id']}", story.console.progress)
    expect(ended["state"] == "succeeded", f"the run ended as {ended['state']}: {ended['error']}")
    shown = ", ".join(f"{name} {value:.3f}" for name, value in ended["metrics"].items() if isinstance(value, float))
    number = ended["version"]["number"] if isinstance(ended["version"], dict) else ended["version"]
    story.console.result(f"it registered version {number} of {TRAINED}: {shown}")
    inspected = story.acme.inspected(TRAINED, number)
    expect(inspected["state"] == "ready", f"its version was rejected: {inspected.get('reason')}")
    story.acme.activate(TRAINED, number, "trained in the demo")
    rows = [dict(zip(story.tumours.names, row, strict=True)) for row in story.tumours.held.rows]
    answer = answer_of(number, lambda: story.acme.post(f"models/{TRAINED}/predict", {"instances": rows}))
    accuracy = story.tumours.held.accuracy(answer["predictions"])
    expect(answer["version"] == number and accuracy > 0.9, f"version {answer['version']} is right in {accuracy:.3f}")
    story.console.result(f"activated; right for {accuracy:.1%} of {len(rows)} held-out rows, by column name")
    story.summary.append(("acme", TRAINED, str(number), "trained here", f"{accuracy:.3f}"))


def read_a_document(story: Story) -> None:
    """acme trains a detector on images of pages, once, and has it read a PDF."""
    story.console.step("acme trains a detector on images of pages, and sends it a PDF that it has never seen")
    story.acme.ensure_model(DETECTOR, "Titles, paragraphs, tables and figures on pages.")
    known = story.acme.versions(DETECTOR)
    number = known[-1]["number"] if known else _trained_detector(story)
    if known:
        story.console.result(f"version {number} of {DETECTOR} is there from before")
    story.acme.activate(DETECTOR, number, "the demo")
    read = documents.read_pdf(story.acme, story.console)
    document = read.document
    expect(document["state"] == "succeeded", f"the document {document['state']}: {document['error']}")
    expect(not document["failed_pages"], f"{document['failed_pages']} of its pages failed")
    story.console.result(
        f"{document['page_count']} pages read: {read.found} of their {read.true} parts found, in {read.told} boxes"
    )
    overlay = documents.keep_overlay(story.acme, document["id"], story.folder)
    story.console.detail(f"the first, with its boxes: {overlay}, or all of them in the admin:")
    story.console.detail(f"{story.acme.base_url}/admin/documents/document/{document['id']}/pages/1/")
    story.summary.append(("acme", DETECTOR, str(number), "trained here", f"{read.found / read.true:.3f}"))


def _trained_detector(story: Story) -> int:
    """The number of the version that a run has registered."""
    run = documents.train_detector(story.acme, story.console)
    expect(run["state"] == "succeeded", f"the run ended as {run['state']}: {run['error']}")
    number = int(run["version"])
    story.console.result(f"version {number} of {DETECTOR}: mAP@0.5 {run['metrics']['map50']:.3f} on held-out pages")
    inspected = story.acme.inspected(DETECTOR, number)
    expect(inspected["state"] == "ready", f"its version was rejected: {inspected.get('reason')}")
    return number


def cross_the_border(story: Story) -> None:
    """globex tries acme's address."""
    story.console.step("globex's token knocks at acme's address")
    trespasser = Tenant(story.operator.url, "acme", story.globex.token)
    for attempt in (lambda: trespasser.get("models"), lambda: trespasser.post(f"models/{FOREST}/predict", {})):
        refused = _refusal(attempt)
        expect(refused.status == 401, f"the answer was {refused}")
    story.console.result(f"refused: {refused}")


def attack(story: Story) -> None:
    """Somebody uploads a pickle that runs a command."""
    story.console.step("Somebody uploads to acme a pickle that runs a shell command when it is loaded")
    proof = (story.folder / "the-command-ran").absolute()
    proof.unlink(missing_ok=True)
    story.acme.ensure_model(HOSTILE, "Not to be trusted.")
    uploaded = story.acme.upload(
        f"models/{HOSTILE}/versions", {"model.pkl": artifacts.hostile_pickle(proof)}, metadata={}
    )
    version = story.acme.inspected(HOSTILE, uploaded["number"])
    expect(not proof.exists(), "the command ran")
    expect(version["state"] == "rejected", f"the version is {version['state']}")
    story.console.result(f"rejected, and its command did nothing: {version['reason']}")
    answer = story.acme.post(f"models/{FOREST}/predict", {"instances": story.tumours.held.rows[:1]})
    story.console.result(f"the other models go on answering: {answer['predictions']}")


STEPS: list[Callable[[Story], None]] = [
    make_tenants,
    upload_forests,
    upload_digits,
    activate_and_predict,
    train,
    read_a_document,
    cross_the_border,
    attack,
]


def _upload(story: Story, tenant: Tenant, model: str, files: dict[str, bytes], metadata: dict[str, Any]) -> None:
    uploaded = tenant.upload(f"models/{model}/versions", files, metadata=metadata)
    version = tenant.inspected(model, uploaded["number"])
    expect(
        version["state"] == "ready",
        f"{model} version {version['number']} is {version['state']}: {version.get('reason')}",
    )
    takes = version["signature"]["inputs"][0]
    size = sum(map(len, files.values())) / 1024
    story.console.result(
        f"version {version['number']} ({size:,.0f} KiB) inspected in a confined runner: {version['format']}, "
        f"{version['task']}, takes {takes['dtype']} {takes['shape']}"
    )


def _predict_direct(story: Story, tenant: Tenant, model: str, number: int, held: Held) -> list[Any]:
    answer = answer_of(number, lambda: tenant.post(f"models/{model}/predict", {"instances": held.rows}))
    accuracy = held.accuracy(answer["predictions"])
    expect(answer["version"] == number, f"version {answer['version']} answered instead of {number}")
    expect(accuracy > 0.9, f"only {accuracy:.1%} of the held-out rows are right")
    story.console.result(f"in the request: {len(held.rows)} held-out rows, {accuracy:.1%} right")
    return list(answer["predictions"])


def _predict_queued(story: Story, tenant: Tenant, model: str, number: int, held: Held) -> list[Any]:
    answer = answer_of(number, lambda: _queued_answer(tenant, model, held))
    expect(answer["version"] == number, f"version {answer['version']} answered instead of {number}")
    predictions = list(answer["predictions"])
    story.console.result(f"through the queue: {held.accuracy(predictions):.1%} right")
    return predictions


def _queued_answer(tenant: Tenant, model: str, held: Held) -> dict[str, Any]:
    accepted = tenant.post(f"models/{model}/predict", {"instances": held.rows, "async": True})
    job = tenant.get(f"predictions/{accepted['id']}", wait=30)
    expect(job["state"] == "succeeded", f"the queued prediction {job['state']}: {job['error']}")
    return dict(job["answer"])


def _refusal(attempt: Callable[[], Any]) -> Refused:
    try:
        attempt()
    except Refused as refused:
        return refused
    raise Mismatch("the request was answered")


def _sum_up(story: Story) -> None:
    story.console.title("What serves now")
    story.console.table(("tenant", "model", "version", "from", "right"), sorted(story.summary))
    story.console.title("Where to look (`make up` starts the platform again, on the same data)")
    story.console.table(("page", "log in as"), story.logins)
