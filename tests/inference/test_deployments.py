"""Splits, shadows, pins and limits of a deployment: its rules over HTTP, and who then answers."""

from collections import Counter

import pytest

from models_registry import deployments, services
from models_registry.models import Activation, ModelVersion
from models_registry.routing import Routing, Share
from tenants.journal.models import AuditEvent
from tenants.scope import tenant_scope
from tests.inference.conftest import fitted

DEPLOYMENT = "api/v1/models/churn/deployment"
PREDICT = "api/v1/models/churn/predict"
ROWS = [[2.0, 0, 0, 0], [-2.0, 0, 0, 0]]
HALVES = [{"version": 1, "percent": 50}, {"version": 2, "percent": 50}]


@pytest.fixture
def admin(acme, client_for):
    return client_for(acme, "admin")


@pytest.fixture
def two(acme, serving, ready_version):
    """Version 1 of `churn` serves; version 2, which says the opposite, is ready."""
    return serving, ready_version(acme, "churn", fitted("no", "yes"))


@pytest.fixture
def warming(settings):
    settings.WARM_UP_SECONDS = 60


def patched(client, status=200, **body):
    answer = client.patch_json(DEPLOYMENT, body)
    assert answer.status_code == status, answer.content
    return answer.json()


def code_of(client, **body):
    answer = client.patch_json(DEPLOYMENT, body)
    return answer.status_code, answer.json()["error"]["code"]


class TestRouting:
    """The choice itself, which asks no database."""

    SPLIT = Routing(split=(Share(1, 90), Share(2, 10)))

    def test_each_version_gets_its_share(self):
        chosen = Counter(self.SPLIT.choose() for _ in range(5_000))
        assert 350 < chosen[2] < 650
        assert chosen[1] + chosen[2] == 5_000

    def test_a_key_always_gets_the_same_version_and_keys_share_the_split(self):
        chosen = {f"customer-{n}": self.SPLIT.choose(f"customer-{n}", "churn") for n in range(2_000)}
        assert all(self.SPLIT.choose(key, "churn") == version for key, version in chosen.items())
        assert 120 < Counter(chosen.values())[2] < 280

    def test_only_the_keys_that_have_to_move_do(self):
        wider = Routing(split=(Share(1, 80), Share(2, 20)))
        keys = [str(n) for n in range(2_000)]
        moved = [(self.SPLIT.choose(key), wider.choose(key)) for key in keys]
        assert {pair for pair in moved if pair[0] != pair[1]} == {(1, 2)}

    def test_one_customer_is_not_in_every_models_small_share(self):
        models = [f"model-{n}" for n in range(200)]
        assert len({self.SPLIT.choose("customer", model) for model in models}) == 2

    def test_a_sample_of_requests_is_mirrored(self):
        routing = Routing(split=(Share(1, 100),), shadow=Share(2, 25))
        assert 800 < sum(routing.is_shadowed() for _ in range(4_000)) < 1_200
        assert not self.SPLIT.is_shadowed()

    def test_what_an_activation_keeps_says_all_of_it(self):
        whole = Routing((Share(1, 60), Share(2, 40)), Share(3, 10), "queue", True, {"rows": 10})
        assert Routing.from_json(whole.to_json(), whole.version) == whole
        assert Routing.from_json({"lane": "queue"}, 4) == Routing((Share(4, 100),), lane="queue")
        assert Routing.from_json({}, None) == Routing()


class TestChanging:
    """What a PATCH does, and what it refuses."""

    def test_a_split_is_shown_and_kept_in_the_history(self, admin, two):
        before = admin.get(DEPLOYMENT).json()
        assert (before["version"], before["split"]) == (1, [{"version": 1, "percent": 100}])
        after = patched(
            admin, split=[{"version": 1, "percent": 90}, {"version": 2, "percent": 10}], reason="try the new one"
        )
        assert (after["version"], after["activation"]) == (1, before["activation"] + 1)
        assert (after["reason"], after["actor"]) == ("try the new one", "token:test")
        newest = admin.get("api/v1/models/churn/activations").json()["results"][0]
        assert newest["routing"]["split"] == after["split"]

    def test_every_part_is_changed_alone(self, admin, two):
        patched(admin, split=HALVES, lane="direct")
        after = patched(admin, limits={"rows": 10}, pinned=True)
        assert (after["split"], after["lane"], after["pinned"], after["limits"]) == (
            HALVES, "direct", True, {"rows": 10},
        )  # fmt: skip
        assert patched(admin, lane=None)["lane"] is None

    def test_what_changes_nothing_adds_no_row(self, admin, two):
        first = patched(admin, split=HALVES)
        assert patched(admin, split=HALVES, reason="again", expected_activation=7) == first

    @pytest.mark.parametrize(
        "split",
        [
            [{"version": 1, "percent": 99}],
            [{"version": 1, "percent": 50}, {"version": 1, "percent": 50}],
            [{"version": 1, "percent": 100}, {"version": 2, "percent": 0}],
            [{"version": 1, "percent": 50.5}, {"version": 2, "percent": 49.5}],
            [],
        ],
    )
    def test_a_split_is_whole_percents_that_sum_to_100(self, admin, two, split):
        assert code_of(admin, split=split) == (422, "invalid_parameter")

    def test_no_version_shadows_itself(self, admin, two):
        assert code_of(admin, shadow={"version": 1}) == (422, "invalid_parameter")

    def test_limits_stay_below_the_operators(self, admin, two, settings):
        settings.MODEL_LIMITS = settings.MODEL_LIMITS | {"rows": 100}
        assert code_of(admin, limits={"rows": 101}) == (422, "invalid_parameter")
        assert code_of(admin, limits={"call_seconds": "nan"}) == (422, "invalid_parameter")

    def test_versions_that_are_not_there_are_not_found(self, admin, two):
        assert code_of(admin, shadow={"version": 9}) == (404, "not_found")

    def test_somebody_elses_change_is_not_undone_unseen(self, admin, two):
        seen = admin.get(DEPLOYMENT).json()["activation"]
        patched(admin, split=HALVES, expected_activation=seen)
        assert code_of(admin, lane="queue", expected_activation=seen) == (409, "stale_expected_activation")
        assert code_of(admin, lane="queue", expected_version=2) == (409, "stale_expected_version")

    def test_where_nothing_serves_a_split_is_needed(self, acme, admin, two):
        with tenant_scope(acme):
            services.deactivate(model=two[0].model, actor="tests")
        assert code_of(admin, lane="queue") == (409, "no_active_version")
        assert patched(admin, split=HALVES)["version"] == 1

    def test_changing_is_for_admins(self, acme, client_for, two):
        answer = client_for(acme, "write").patch_json(DEPLOYMENT, {"lane": "queue"})
        assert answer.status_code == 403

    def test_changes_show_in_the_audit_trail(self, acme, admin, two):
        patched(admin, split=HALVES, reason="why")
        with tenant_scope(acme):
            event = AuditEvent.objects.get(action="deployment.change")
        assert (event.target, event.detail["reason"], event.detail["routing"]["split"]) == ("churn", "why", HALVES)


class TestHistory:
    """Activating, going back, taking out of service, deleting."""

    def test_activating_one_version_ends_the_split_and_keeps_the_rest(self, admin, two):
        patched(admin, split=HALVES, lane="direct", limits={"rows": 9})
        admin.post_json("api/v1/models/churn/versions/1/activate")
        after = admin.get(DEPLOYMENT).json()
        assert (after["split"], after["lane"], after["limits"]) == (
            [{"version": 1, "percent": 100}], "direct", {"rows": 9},
        )  # fmt: skip

    def test_the_shadow_that_is_activated_shadows_no_more(self, admin, two):
        patched(admin, shadow={"version": 2})
        admin.post_json("api/v1/models/churn/versions/2/activate")
        assert admin.get(DEPLOYMENT).json()["shadow"] is None

    def test_a_rollback_brings_the_split_back_with_all_that_went_with_it(self, admin, two):
        split = patched(admin, split=HALVES, pinned=True)
        admin.post_json("api/v1/models/churn/versions/2/activate")
        patched(admin, pinned=False, lane="direct")
        admin.post_json("api/v1/models/churn/rollback")
        after = admin.get(DEPLOYMENT).json()
        assert {name: after[name] for name in ("split", "pinned", "lane")} == {
            name: split[name] for name in ("split", "pinned", "lane")
        }

    def test_deactivating_ends_split_shadow_and_pin(self, admin, two):
        patched(admin, shadow={"version": 2}, pinned=True, lane="direct")
        admin.post_json("api/v1/models/churn/deactivate")
        after = admin.get(DEPLOYMENT).json()
        assert (after["version"], after["split"], after["shadow"], after["pinned"]) == (None, [], None, False)
        assert after["lane"] == "direct"

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"split": [{"version": 1, "percent": 90}, {"version": 2, "percent": 10}]}, "10 % of the requests"),
            ({"shadow": {"version": 2, "percent": 5}}, "the shadow"),
        ],
    )
    def test_what_is_routed_is_not_deleted(self, admin, two, change, words):
        patched(admin, **change)
        answer = admin.delete("api/v1/models/churn/versions/2")
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "version_active")
        assert words in answer.json()["error"]["message"]
        assert admin.delete("api/v1/models/churn").status_code == 409

    def test_a_deployment_can_be_read_before_anything_serves(self, acme, admin):
        with tenant_scope(acme):
            services.create_model(name="empty", actor="tests")
        body = admin.get("api/v1/models/empty/deployment").json()
        assert (body["activation"], body["version"], body["split"]) == (0, None, [])


class TestWarmUp:
    """The version answers before it is switched to."""

    def test_it_is_in_memory_when_the_activation_is_there(self, acme, two, warming):
        from inference.pool import model_pool
        from models_registry.loading import pool_key

        second = two[1]
        with tenant_scope(acme):
            assert not model_pool().has_key(pool_key(acme, second))
            services.activate(version=second, actor="tests")
            assert model_pool().has_key(pool_key(acme, second))

    def test_what_cannot_be_loaded_is_refused_and_changes_nothing(self, acme, admin, two, warming):
        with tenant_scope(acme):
            ModelVersion.objects.filter(pk=two[1].pk).update(format="onnx")
            before = Activation.objects.count()
        answer = admin.post_json("api/v1/models/churn/versions/2/activate")
        assert answer.status_code == 409, answer.content
        assert "cannot be loaded" in answer.json()["error"]["message"]
        with tenant_scope(acme):
            assert Activation.objects.count() == before

    def test_limits_that_the_model_does_not_fit_in_are_refused(self, acme, admin, ready_version, warming):
        model = fitted()
        model.ballast = bytes(64 << 20)
        with tenant_scope(acme):
            services.activate(version=ready_version(acme, "churn", model), actor="tests")
        answer = admin.patch_json(DEPLOYMENT, {"limits": {"memory_bytes": 32 << 20}})
        assert answer.status_code == 409, answer.content
        assert admin.get(DEPLOYMENT).json()["limits"] == {}
        answer = admin.post_json(PREDICT, {"instances": ROWS})
        assert answer.status_code == 200, answer.content

    def test_without_a_model_host_activations_wait_for_one(self, admin, two, warming, settings):
        settings.MODELS_SOCKET = "/nonexistent/models.sock"
        answer = admin.post_json("api/v1/models/churn/versions/2/activate")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "host_unavailable")
        assert answer["Retry-After"]


def test_a_deployment_is_a_value_that_deployments_can_read(acme, two):
    with tenant_scope(acme):
        activation, routing = deployments.state_of(two[0].model)
        assert activation is not None
        assert (activation.version_number, routing) == (1, Routing((Share(1, 100),)))
