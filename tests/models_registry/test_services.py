"""Versions, what serves, aliases and deleting: the rules, without HTTP."""

import io
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from common.errors import Conflict, Denied, Invalid, NotFound, PlatformError, TooLarge
from models_registry import selection, services
from models_registry.blobs import IncomingFile, used_bytes
from models_registry.metadata import VersionMetadata
from models_registry.models import Activation, Deployment, ModelVersion, RegisteredModel
from tenants.journal.models import AuditEvent
from tenants.models import Job, JobState, Tenant

Make = Callable[..., ModelVersion]
pytestmark = pytest.mark.usefixtures("here")


def code_of(call: Callable[[], Any]) -> str:
    """The code of the error that a call raises."""
    with pytest.raises(PlatformError) as caught:
        call()
    return caught.value.code


def activate(version: ModelVersion, **options: Any) -> Activation:
    return services.activate(version=version, actor="alice@acme.test", **options)


class TestModels:
    """Making and changing registered models."""

    def test_a_name_is_taken_once(self) -> None:
        services.create_model(name="churn", actor="alice")

        with pytest.raises(Conflict, match="churn"):
            services.create_model(name="churn", actor="bob")

    @pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "ä", "a" * 101, "a\0", "a\n"])
    def test_other_things_are_no_names(self, name: str) -> None:
        with pytest.raises(Invalid):
            services.create_model(name=name, actor="alice")

    def test_changes_show_in_the_audit_trail(self) -> None:
        model = services.create_model(name="churn", actor="alice")
        services.change_model(model=model, actor="bob", description="Who leaves")

        actions = AuditEvent.objects.filter(target="churn").order_by("at").values_list("actor", "action", "target")
        assert list(actions) == [("alice", "model.create", "churn"), ("bob", "model.change", "churn")]


class TestVersions:
    """Registering versions."""

    def test_numbers_count_up_and_are_never_used_again(self, make_version: Make) -> None:
        assert [make_version().number for _ in range(3)] == [1, 2, 3]
        services.delete_version(version=ModelVersion.objects.get(number=3), actor="alice")

        assert make_version().number == 4

    def test_an_unknown_model_is_not_found_before_a_file_is_stored(self) -> None:
        def unread() -> Any:
            raise AssertionError("a file was read")
            yield

        with pytest.raises(NotFound):
            services.register_version(model_name="nope", files=unread(), actor="alice")

    def test_a_version_keeps_what_was_said_of_it(self, make_version: Make) -> None:
        run = uuid.uuid4()
        version = make_version(
            metadata=VersionMetadata(metrics={"auc": 0.9}, params={"depth": 3}, declared={"labels": ["no", "yes"]}),
            source_run=run,
            metrics_measured={"auc": 0.8, "f1": 0.7},
            measured_on={"dataset": "churn", "digest": "ab12"},
        )
        version.refresh_from_db()

        assert version.metrics == {"auc": 0.8, "f1": 0.7}
        assert (version.metrics_reported, version.params) == ({"auc": 0.9}, {"depth": 3})
        assert (version.metadata, version.source_run) == ({"labels": ["no", "yes"]}, run)
        assert version.measured_on == {"dataset": "churn", "digest": "ab12"}

    def test_an_inspection_is_submitted(self, make_version: Make) -> None:
        version = make_version(ready=False)

        job = Job.objects.get(kind="models_registry.inspect")
        assert (job.object_id, job.state) == (str(version.pk), JobState.QUEUED)
        assert version.inspection_job == job

    def test_more_than_the_tenant_may_upload_is_too_large(self, here: Tenant, make_version: Make) -> None:
        here.max_artifact_bytes = 4

        with pytest.raises(TooLarge):
            make_version(content=b"12345")

    def test_more_than_the_tenant_may_keep_is_denied_with_what_is_left(self, here: Tenant, make_version: Make) -> None:
        make_version(content=b"12345")
        here.max_storage_bytes = 7

        with pytest.raises(Denied, match="2 of this tenant's 7") as caught:
            make_version(content=b"678")
        assert caught.value.code == "quota_exceeded"

    def test_the_same_file_again_takes_no_room(self, here: Tenant, make_version: Make) -> None:
        make_version(content=b"12345")
        here.max_storage_bytes = 5

        assert make_version(content=b"12345").number == 2
        assert used_bytes() == 5

    def test_a_deleted_version_gives_its_room_back_at_once(self, make_version: Make) -> None:
        version = make_version(content=b"12345")
        services.delete_version(version=version, actor="alice")

        assert used_bytes() == 0


class TestActivating:
    """What serves, and how it got there."""

    def test_an_activation_is_added_and_serves(self, make_version: Make) -> None:
        version = make_version()

        activation = activate(version, reason="first")

        assert (activation.number, activation.version_number, activation.reason) == (1, 1, "first")
        assert activation.actor == "alice@acme.test"
        assert Deployment.objects.get(model=version.model).version == version

    def test_what_serves_already_adds_no_row(self, make_version: Make) -> None:
        version = make_version()
        first = activate(version)

        assert activate(version, expected_version=7) == first
        assert Activation.objects.count() == 1

    def test_a_version_that_is_not_ready_is_refused(self, make_version: Make) -> None:
        version = make_version(ready=False)

        assert code_of(lambda: activate(version)) == "version_not_ready"

    def test_the_expected_version_is_compared(self, make_version: Make) -> None:
        first, second, third = (make_version() for _ in range(3))
        assert code_of(lambda: activate(first, expected_version=1)) == "stale_expected_version"
        activate(first, expected_version=0)

        assert code_of(lambda: activate(second, expected_version=0)) == "stale_expected_version"
        activate(second, expected_version=1)
        assert code_of(lambda: activate(third, expected_version=1)) == "stale_expected_version"

    def test_a_deleted_version_is_not_found(self, make_version: Make) -> None:
        version = make_version()
        ModelVersion.objects.all().delete()

        assert code_of(lambda: activate(version)) == "not_found"

    def test_deactivating_leaves_nothing_serving(self, make_version: Make) -> None:
        version = make_version()
        activate(version)

        services.deactivate(model=version.model, actor="alice")
        again = services.deactivate(model=version.model, actor="alice")

        assert Deployment.objects.get(model=version.model).version is None
        assert (again.number, Activation.objects.count()) == (2, 2)

    def test_what_never_served_cannot_be_deactivated(self, make_version: Make) -> None:
        model = make_version().model

        assert code_of(lambda: services.deactivate(model=model, actor="alice")) == "no_active_version"

    def test_the_routing_goes_on_with_the_next_version(self, make_version: Make) -> None:
        first, second = make_version(), make_version()
        activate(first)
        Activation.objects.update(routing={"lane": "queue"})

        assert activate(second).routing == {"lane": "queue"}


class TestRollback:
    """Going back."""

    def rolled_back(self, model: RegisteredModel) -> int | None:
        return services.rollback(model=model, actor="alice").version_number

    def test_the_version_before_serves_again(self, make_version: Make) -> None:
        first, second = make_version(), make_version()
        activate(first)
        activate(second)

        assert self.rolled_back(first.model) == 1
        assert self.rolled_back(first.model) == 2
        assert list(Activation.objects.values_list("number", "version_number")) == [(4, 2), (3, 1), (2, 2), (1, 1)]

    def test_after_a_deactivation_what_served_before_serves_again(self, make_version: Make) -> None:
        version = make_version()
        activate(version)
        services.deactivate(model=version.model, actor="alice")

        assert self.rolled_back(version.model) == 1

    def test_there_must_be_something_to_go_back_to(self, make_version: Make) -> None:
        version = make_version()
        assert code_of(lambda: self.rolled_back(version.model)) == "nothing_to_roll_back"
        activate(version)

        assert code_of(lambda: self.rolled_back(version.model)) == "nothing_to_roll_back"

    def test_a_deleted_version_is_not_gone_back_to(self, make_version: Make) -> None:
        first, second = make_version(), make_version()
        activate(first)
        activate(second)
        services.delete_version(version=first, actor="alice")

        assert code_of(lambda: self.rolled_back(second.model)) == "version_deleted"


class TestDeleting:
    """What keeps a version or a model."""

    def delete(self, version: ModelVersion) -> None:
        services.delete_version(version=version, actor="alice")

    def test_a_version_that_serves_stays(self, make_version: Make) -> None:
        version = make_version()
        activate(version)

        assert code_of(lambda: self.delete(version)) == "version_active"

    def test_an_aliased_version_stays_and_the_alias_is_named(self, make_version: Make) -> None:
        version = make_version()
        services.set_alias(version=version, name="champion", actor="alice")

        with pytest.raises(Conflict, match="champion"):
            self.delete(version)

    def test_a_version_being_inspected_stays_and_the_job_is_named(self, make_version: Make) -> None:
        version = make_version(ready=False)

        with pytest.raises(Conflict, match=r"models_registry\.inspect"):
            self.delete(version)

    def test_a_version_that_a_prediction_waits_for_stays(self, here: Tenant, make_version: Make) -> None:
        from inference.models import AsyncPrediction

        version = make_version()
        job = Job.objects.create(tenant=here, kind="inference.predict", object_id="x")
        AsyncPrediction.objects.create(job=job, version=version, model_name="churn", request={})
        assert code_of(lambda: self.delete(version)) == "version_in_use"
        job.cancel()

        self.delete(version)

        assert not ModelVersion.objects.exists()

    def test_the_history_keeps_the_number_of_a_deleted_version(self, make_version: Make) -> None:
        first, second = make_version(), make_version()
        activate(first)
        activate(second)
        self.delete(first)

        assert list(Activation.objects.values_list("version_number", "version")) == [(2, second.pk), (1, None)]

    def test_a_model_that_serves_stays(self, make_version: Make) -> None:
        version = make_version()
        activate(version)

        assert code_of(lambda: services.delete_model(model=version.model, actor="alice")) == "version_active"

    def test_a_model_with_an_open_inspection_stays(self, make_version: Make) -> None:
        model = make_version(ready=False).model

        assert code_of(lambda: services.delete_model(model=model, actor="alice")) == "version_in_use"

    def test_a_model_goes_with_its_versions_aliases_and_history(self, make_version: Make) -> None:
        first, second = make_version(), make_version()
        activate(first)
        activate(second)
        services.deactivate(model=first.model, actor="alice")
        services.set_alias(version=first, name="old", actor="alice")

        services.delete_model(model=first.model, actor="alice")

        for table in (RegisteredModel, ModelVersion, Activation, Deployment):
            assert not table._default_manager.exists()

    def test_a_model_made_again_under_its_name_is_another(self, make_version: Make) -> None:
        before = make_version()
        services.delete_model(model=before.model, actor="alice")

        after = make_version()

        assert (after.number, after.pk == before.pk) == (1, False)


class TestActivateBest:
    """Choosing by a metric."""

    @pytest.fixture
    def scored(self, make_version: Make) -> Callable[..., ModelVersion]:
        def make(model: str = "churn", *, reported: Any = None, measured: Any = None, on: str = "") -> ModelVersion:
            dataset, _, digest = on.partition("@")
            return make_version(
                model,
                metadata=VersionMetadata(metrics={"auc": reported} if reported is not None else {}),
                metrics_measured={"auc": measured} if measured is not None else {},
                measured_on={"dataset": dataset, "digest": digest} if on else {},
            )

        return make

    def best(self, **options: Any) -> Any:
        given = {"actor": "alice", "metric": "auc", "direction": "max"} | options
        choice, activation = services.activate_best(**given)
        return choice, activation.version_number

    def test_the_highest_of_a_model_serves(self, scored: Callable[..., ModelVersion]) -> None:
        low, high = scored(reported=0.7), scored(reported=0.9)
        scored("other", reported=0.99)

        choice, number = self.best(model=low.model)

        assert number == high.number
        assert choice.criteria()["compared_count"] == 2
        assert Activation.objects.get().criteria["value"] == 0.9

    def test_the_lowest_serves_where_less_is_better(self, scored: Callable[..., ModelVersion]) -> None:
        low = scored(reported=0.1)
        scored(reported=0.2)

        assert self.best(model=low.model, direction="min")[1] == low.number

    def test_a_measured_value_stands_before_a_reported_one(self, scored: Callable[..., ModelVersion]) -> None:
        boasted = scored(reported=0.99, measured=0.6)
        honest = scored(measured=0.8)

        assert self.best(model=boasted.model)[1] == honest.number

    def test_those_without_the_metric_are_left_out_and_counted(self, scored: Callable[..., ModelVersion]) -> None:
        has = scored(reported=0.5)
        scored()

        choice, number = self.best(model=has.model)

        assert number == has.number
        assert choice.left_out == 1
        assert "1 were left out" in choice.explanation

    def test_without_a_candidate_nothing_changes(self, scored: Callable[..., ModelVersion]) -> None:
        model = scored().model

        assert code_of(lambda: self.best(model=model)) == "no_candidate"
        assert not Activation.objects.exists()

    def test_versions_that_are_not_ready_are_no_candidates(self, make_version: Make) -> None:
        version = make_version(ready=False, metadata=VersionMetadata(metrics={"auc": 0.9}))

        assert code_of(lambda: self.best(model=version.model)) == "no_candidate"

    def test_of_equals_the_one_that_serves_stays(self, scored: Callable[..., ModelVersion]) -> None:
        first = scored(reported=0.9)
        scored(reported=0.9)
        activate(first)

        choice, number = self.best(model=first.model)

        assert number == first.number
        assert "serves already" in choice.explanation
        assert Activation.objects.count() == 1

    def test_of_equals_the_newest_wins(self, scored: Callable[..., ModelVersion]) -> None:
        first, second = scored(reported=0.9), scored(reported=0.9)

        assert self.best(model=first.model)[1] == second.number

    def test_a_dataset_leaves_only_what_was_measured_on_it(self, scored: Callable[..., ModelVersion]) -> None:
        scored(reported=0.99)
        scored(measured=0.95, on="other@aaaa")
        scored(measured=0.90, on="churn@bbbb")
        right = scored(measured=0.80, on="churn@cccc")

        assert self.best(model=right.model, dataset="churn@cc")[1] == right.number
        assert self.best(model=right.model, dataset="churn")[1] == 3

    def test_values_from_different_datasets_are_said_to_be_so(self, scored: Callable[..., ModelVersion]) -> None:
        model = scored(reported=0.9).model
        scored(measured=0.8, on="churn@aaaa")

        assert "not strictly comparable" in self.best(model=model)[0].explanation

    def test_the_best_of_a_task_is_the_default_model(self, here: Tenant, scored: Callable[..., ModelVersion]) -> None:
        scored("churn", reported=0.8)
        scored("fraud", reported=0.9)

        choice, _ = self.best(task="classification")

        assert choice.best.version.model.name == "fraud"
        assert Tenant.objects.get(pk=here.pk).default_model == "fraud"


def test_an_alias_is_moved_to_another_version(make_version: Make) -> None:
    first, second = make_version(), make_version()

    _, is_new = services.set_alias(version=first, name="champion", actor="alice")
    alias, is_new_again = services.set_alias(version=second, name="champion", actor="alice")

    assert (is_new, is_new_again, alias.version) == (True, False, second)


def test_a_bundle_stored_before_is_registered_inside_a_transaction(make_version: Make) -> None:
    from django.db import transaction

    from models_registry.blobs import store_bundle

    bundle = store_bundle([IncomingFile("model.pkl", io.BytesIO(b"1"))])
    with transaction.atomic():
        version = services.register_version(model_name="churn", files=bundle, actor="a run", create=True)

    assert version.bundle == bundle

    def test_comparing_reads_no_signatures(self, make_version: Make) -> None:
        for score in (0.1, 0.9, 0.5):
            make_version(metadata=VersionMetadata(metrics={"auc": score}))

        with CaptureQueriesContext(connection) as captured:
            choice = selection.choose(ModelVersion.objects.all(), metric="auc", direction="max")

        assert choice.best.version.number == 2
        assert len(captured) == 2
        assert not [query for query in captured if "signature" in query["sql"]]
