"""A search tries parameters, gives bad trials up, and makes the best one's version."""

import statistics

import pytest
from django.utils import timezone

from models_registry import execution as registry_execution
from runtimes.client import Progress
from tenants import jobs
from tenants.models import Job
from tenants.scope import tenant_scope
from tests.training.conftest import customers, upload
from training import execution, fit_watch, searching, trials
from training.models import Purpose, Run, RunMetric
from training.run_requests import RunRequest
from training.search_requests import Range, SearchRequest, check_search, grid_size
from training.suggestions import Tried, suggest

SPACE = {"C": [0.01, 1.0], "max_iter": {"low": 50, "high": 200, "steps": 2}}


def search_body(**changes):
    """A search that can be carried out on `customers`, with changes."""
    body = {
        "trainer": "logistic_regression",
        "dataset": "customers",
        "target": "left",
        "model": "churn",
        "method": "grid",
        "trials": 16,
        "space": SPACE,
        "metric": "roc_auc",
        "direction": "max",
    }
    return {name: value for name, value in (body | changes).items() if value is not None}


def submitted(client, **changes):
    answer = client.post_json("api/v1/searches", search_body(**changes))
    assert answer.status_code == 202, answer.content
    return answer.json()


def step(tenant, search):
    """Take the next step of a search, as a worker that a hint has reached."""
    Job.objects.filter(pk=search["id"]).update(due_at=timezone.now())
    with tenant_scope(tenant):
        jobs.work_on(search["id"], searching.advance)


def work_on_trials(tenant, search, most=100):
    """Work on the open runs of a search."""
    with tenant_scope(tenant):
        waiting = Run.objects.filter(parent=search["id"], job__state="queued").order_by("created_at")
        for run_id in waiting.values_list("pk", flat=True)[:most]:
            jobs.work_on(str(run_id), execution.work)


@pytest.mark.usefixtures("model_host")
def test_a_grid_is_tried_whole_and_its_best_is_registered(acme, scientist, dataset):
    search = submitted(scientist, experiment="spring")
    assert (search["state"], search["purpose"], search["search"]["trials"]) == ("queued", "search", 4)
    step(acme, search)
    shown = scientist.get(f"api/v1/searches/{search['id']}").json()
    assert shown["state"] == "running"
    assert [trial["params"]["C"] for trial in shown["trials"]] == [0.01, 0.01, 1.0, 1.0]
    work_on_trials(acme, search)
    step(acme, search)
    work_on_trials(acme, search)
    step(acme, search)
    shown = scientist.get(f"api/v1/searches/{search['id']}").json()
    assert shown["state"] == "succeeded", shown["error"]
    values = [trial["value"] for trial in shown["trials"]]
    assert values[shown["best"]] == max(values)
    assert shown["metrics"]["roc_auc"] == max(values)
    assert shown["version"] == 1
    assert shown["params"]["C"] == shown["trials"][shown["best"]]["params"]["C"]
    listed = scientist.get("api/v1/runs?purpose=trial&order_by=-metrics.roc_auc").json()["results"]
    assert [run["metrics"]["roc_auc"] for run in listed] == sorted(values, reverse=True)
    assert {run["parent_id"] for run in listed} == {search["id"]}


@pytest.mark.usefixtures("model_host")
def test_a_search_says_what_became_of_its_activation(acme, client_for, dataset):
    admin = client_for(acme)
    search = submitted(admin, space={"C": [1.0]}, activate_if={"metric": "roc_auc", "margin": 0.0})
    for _ in range(2):
        step(acme, search)
        work_on_trials(acme, search)
    step(acme, search)
    shown = admin.get(f"api/v1/searches/{search['id']}").json()
    assert (shown["state"], shown["activation_decision"]["state"]) == ("succeeded", "pending")
    with tenant_scope(acme):
        version = Run.objects.select_related("version").get(pk=search["id"]).version
        assert version is not None
        jobs.work_on(str(version.inspection_job_id), registry_execution.inspect)
        jobs.work_on(str(Job.objects.get(kind=execution.DECISION_KIND).pk), execution.decide_activation)
    shown = admin.get(f"api/v1/searches/{search['id']}?wait=20").json()
    assert (shown["version"], shown["activation_decision"]["state"]) == (1, "activated")


def test_a_search_counts_as_one_open_run_and_is_cancelled_with_its_trials(acme, scientist, dataset):
    acme.max_open_runs = 1
    acme.save()
    search = submitted(scientist)
    step(acme, search)
    assert scientist.post_json("api/v1/searches", search_body()).status_code == 429
    assert scientist.post(f"api/v1/runs/{search['id']}/cancel").json()["state"] == "cancelled"
    with tenant_scope(acme):
        assert set(Run.objects.values_list("job__state", flat=True)) == {"cancelled"}
    assert scientist.post_json("api/v1/searches", search_body()).status_code == 202


def test_a_search_that_waits_for_its_trials_is_listed_as_running(acme, scientist, dataset):
    search = submitted(scientist)
    step(acme, search)

    def listed(state):
        return [run["id"] for run in scientist.get(f"api/v1/runs?state={state}").json()["results"]]

    assert listed("running") == [search["id"]]
    assert search["id"] not in listed("queued")
    assert len(listed("queued")) == 4


def test_a_search_whose_trials_all_fail_fails_with_the_reason(acme, scientist, dataset):
    search = submitted(scientist)
    step(acme, search)
    with tenant_scope(acme):
        of_trials = Run.objects.filter(parent=search["id"]).values("job")
        Job.objects.filter(pk__in=of_trials).update(state="failed", finished_at=timezone.now())
    step(acme, search)
    shown = scientist.get(f"api/v1/searches/{search['id']}").json()
    assert (shown["state"], shown["error"]["code"]) == ("failed", "no_trial_succeeded")


@pytest.mark.parametrize(
    ("changes", "field", "told"),
    [
        ({"space": {}}, "space", "1 to 20"),
        ({"space": {"depth": [1]}}, "space.depth", "no such parameter"),
        ({"space": {"C": [1, -1]}}, "space.C", "greater than 0"),
        ({"space": {"C": {"low": 2, "high": 1}}}, "space.C", "low is less than high"),
        ({"space": {"C": {"low": 0, "high": 1, "log": True}}}, "space.C", "with log more than 0"),
        ({"space": {"C": "all"}}, "space.C", "a list of"),
        ({"space": {"C": {"low": 1, "high": 10**400}}}, "space.C", "a list of"),
        ({"space": {"max_iter": [10**20]}}, "space.max_iter", "less than or equal"),
        ({"space": {"C": list(range(1, 101)), "max_iter": list(range(1, 7))}, "trials": None}, "space", "600 points"),
        ({"metric": "r2"}, "metric", "roc_auc"),
        ({"method": "luck"}, "method", "not a valid choice"),
        ({"trials": 501}, "trials", "less than or equal to 500"),
        ({"validation": {"kind": "none"}}, "validation.kind", "nothing to compare"),
        ({"target": "gone"}, "target", "no column"),
    ],
    ids=[
        "empty",
        "unknown",
        "value",
        "turned",
        "log",
        "word",
        "far",
        "huge",
        "grid",
        "metric",
        "method",
        "trials",
        "validation",
        "target",
    ],
)
def test_each_fault_is_named_by_its_field(scientist, dataset, changes, field, told):
    answer = scientist.post_json("api/v1/searches", search_body(**changes))
    assert answer.status_code == 422
    assert told in answer.json()["error"]["fields"][field]


def test_a_grid_is_tried_whole_unless_fewer_trials_are_asked_for(scientist, dataset):
    space = {"C": [0.01, 0.1, 1.0, 10.0], "max_iter": {"low": 50, "high": 250}}
    assert submitted(scientist, space=space, trials=None)["search"]["trials"] == 20
    assert submitted(scientist, space=space, trials=3)["search"]["trials"] == 3


def test_whole_numbers_of_a_range_have_equal_shares():
    drawn = [Range(low=1, high=3).drawn(part / 30) for part in range(30)]
    assert [drawn.count(value) for value in (1, 2, 3)] == [10, 10, 10]


def test_random_trials_lie_in_the_space_and_come_out_the_same_again():
    search = {"method": "random", "seed": 3, "space": {"C": {"low": 1e-3, "high": 10, "log": True}, "k": [1, 2]}}
    params = [suggest(search, number, []) for number in range(50)]
    assert params == [suggest(search, number, []) for number in range(50)]
    assert all(1e-3 <= one["C"] <= 10 and one["k"] in (1, 2) for one in params)
    assert statistics.median(one["C"] for one in params) < 1
    assert grid_size({"C": [1, 2, 3], "n": {"low": 1, "high": 2}}) == 6


def test_a_bayesian_search_comes_closer_than_chance():
    space = {"x": {"low": -10.0, "high": 10.0}, "kind": [["a"], ["b"]]}

    def best(method):
        search = {"method": method, "seed": 1, "space": space, "direction": "min"}
        tried: list[Tried] = []
        values = []
        for number in range(30):
            params = suggest(search, number, tried)
            values.append((params["x"] - 3) ** 2 + (params["kind"] == ["b"]))
            tried.append(Tried(params, values[-1], has_ended=True))
        return min(values)

    assert best("bayes") < best("random")
    search = {"method": "bayes", "seed": 1, "space": space, "direction": "min"}
    running = [Tried({"x": 3.0, "kind": ["a"]}, None, has_ended=False)] * 6
    assert -10 <= suggest(search, 6, running)["x"] <= 10


def test_a_trial_that_was_given_up_counts_less_than_one_that_ended():
    search = {"method": "bayes", "seed": 1, "space": {"x": {"low": 0.0, "high": 10.0}}, "direction": "max"}
    ended = [Tried({"x": 1.0 + place / 10}, 0.5, has_ended=True) for place in range(8)]
    begun = [Tried({"x": 9.0 - place / 10}, 0.9, has_ended=True, pruned_at=3) for place in range(8)]
    assert suggest(search, 16, [*ended, *begun])["x"] < 5
    ended_well = [Tried(tried.params, tried.value, has_ended=True) for tried in begun]
    assert suggest(search, 16, [*ended, *ended_well])["x"] > 5


def test_a_trial_that_is_worse_than_most_were_is_given_up(acme, scientist, dataset):
    search = submitted(scientist)
    step(acme, search)
    with tenant_scope(acme):
        *others, trial = (
            Run.objects.filter(purpose=Purpose.TRIAL).select_related("parent", "job").order_by("created_at")
        )
        for run in others:
            for place in range(5):
                RunMetric.objects.create(run=run, key="roc_auc", value=0.8, step=place, at=timezone.now())
        job = Job.objects.get(pk=trial.pk)
        job.claim("tests")
        watch = fit_watch.FitWatch(job, trial)
        assert watch.metric == "roc_auc"
        for _ in range(3):
            watch.on_progress(Progress(50.0, "fitting", {"roc_auc": 0.7}))
        with pytest.raises(fit_watch.TrialPruned, match=r"0.7 at step 3"):
            watch.on_progress(Progress(50.0, "fitting", {"roc_auc": 0.7}))
        trials.end_pruned(job, trial, fit_watch.TrialPruned(0.7, 3))
    shown = scientist.get(f"api/v1/searches/{search['id']}").json()
    assert (shown["trials"][-1]["is_pruned"], shown["trials"][-1]["value"]) == (True, 0.7)
    assert shown["best"] is None


@pytest.mark.usefixtures("model_host")
def test_a_bad_trials_fit_ends_early(acme, scientist, dataset):
    """The others are better than any can be, so of the 20 parts of its fit it does no more than tells that."""
    search = submitted(
        scientist, trainer="random_forest_classifier", params={"n_estimators": 40},
        space={"seed": [1, 2, 3, 4]}, metric="accuracy",
    )  # fmt: skip
    step(acme, search)
    with tenant_scope(acme):
        *others, trial = Run.objects.filter(purpose=Purpose.TRIAL).order_by("created_at")
        RunMetric.objects.bulk_create(
            RunMetric(run=run, key="accuracy", value=2.0, step=place, at=timezone.now())
            for run in others
            for place in range(30)
        )
        jobs.work_on(str(trial.pk), execution.work)
        trial.refresh_from_db()
        job, points = Job.objects.get(pk=trial.pk), trial.metric_history.filter(key="accuracy").count()
    assert trial.search is not None
    assert (job.state, trial.search["pruned"], points) == ("succeeded", True, fit_watch.PRUNE_FROM_STEP + 1)
    assert "given up" in trial.log
    assert (trial.metrics, trial.peak_memory_bytes) == ({}, None)


def test_the_row_of_a_search_says_all_of_it(acme, scientist, dataset):
    with tenant_scope(acme):
        asked = SearchRequest(
            RunRequest("random_forest_classifier", "customers", "left", "m"), {"n_estimators": [1]},
            {"metric": "log_loss"},
        )  # fmt: skip
        told = check_search(asked).search
    assert (told["direction"], told["method"], told["trials"]) == ("min", "random", 16)
    assert upload(scientist, content=customers(seed=3)).status_code == 201
