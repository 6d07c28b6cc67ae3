"""Rows that are sampled, and how far they have moved from the table that a version was measured on."""

import time
import uuid
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from inference.drift import CHANGED, LEAST_ROWS, Grouped, moved, stability_index
from inference.queued.valkey import valkey
from inference.sampling import MOST_WAITING, ROWS_A_SLOT, SLOT_COUNT, SLOT_S, Samples, code_of, recent, sampled_fields
from runtimes.measured import Histogram
from runtimes.profiles import ColumnProfile, Counted, Profile, Sample
from runtimes.signature import Field, Signature

RNG = np.random.default_rng(7)
AGE, CITY, MEMBER = Field("age", "float64", (-1,), True), Field("city", "string", (-1,)), Field("member", "bool", (-1,))
SIGNATURE = Signature("columns", (AGE, CITY, MEMBER), (Field("prediction", "float64", (-1,)),))
AGES = RNG.normal(50, 10, 500)


@pytest.fixture(scope="module")
def profile() -> Profile:
    counts, edges = np.histogram(AGES, bins=20)
    columns = [
        ColumnProfile(
            name="age",
            kind="number",
            missing=10,
            distinct=500,
            mean=50.0,
            histogram=Histogram(edges=edges.tolist(), counts=counts.tolist()),
        ),
        ColumnProfile(
            name="city",
            kind="text",
            missing=0,
            distinct=2,
            top=[Counted(value="Rome", count=310), Counted(value="Oslo", count=200)],
        ),
        ColumnProfile(
            name="member",
            kind="boolean",
            missing=0,
            distinct=2,
            top=[Counted(value="True", count=310), Counted(value="False", count=200)],
        ),
    ]
    return Profile(row_count=510, names=["age", "city", "member"], columns=columns, sample=Sample(columns=[], rows=[]))


def rows(count: int, older: float = 0.0, romans: float = 0.6) -> np.ndarray:
    """So many rows like the profile's, with changes."""
    cities = np.where(RNG.random(count) < romans, code_of("Rome"), code_of("Oslo"))
    members = RNG.random(count) < 0.6
    return np.column_stack([RNG.normal(50 + older, 10, count), cities, members]).astype(np.float32)


def changed(profile: Profile, found: np.ndarray) -> set[str]:
    return {one.column for one in moved(profile, SIGNATURE.inputs, found) if one.is_changed}


def test_rows_of_the_same_population_have_not_moved(profile: Profile) -> None:
    assert not any(changed(profile, rows(LEAST_ROWS)) for _ in range(50))
    assert not changed(profile, rows(1200))


def test_the_column_that_moved_is_named_first(profile: Profile) -> None:
    found = moved(profile, SIGNATURE.inputs, rows(300, older=12))
    assert (found[0].column, found[0].is_changed) == ("age", True)
    assert found[0].then.startswith("mean 50,")
    assert changed(profile, rows(300, romans=0.1)) == {"city"}
    assert changed(profile, np.column_stack([rows(300)[:, :2], np.zeros(300)]).astype(np.float32)) == {"member"}


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e9], ids=["missing", "infinite", "far below"])
def test_what_the_table_never_had_is_a_change(profile: Profile, value: float) -> None:
    found = rows(300)
    found[:150, 0] = value
    assert changed(profile, found) == {"age"}


def test_too_few_rows_and_columns_of_another_kind_say_nothing(profile: Profile) -> None:
    assert moved(profile, SIGNATURE.inputs, rows(LEAST_ROWS - 1)) == []
    swapped = [Field("city", "float64", (-1,)), Field("age", "string", (-1,)), Field("other", "float64", (-1,))]
    assert moved(profile, swapped, rows(LEAST_ROWS)) == []


@pytest.mark.parametrize(
    "lie",
    [
        {"histogram": Histogram(edges=[0.0, 1.0], counts=[])},
        {"histogram": Histogram(edges=[0.0, 1.0, 2.0], counts=[-5, 10])},
        {"histogram": Histogram(edges=[0.0, 1.0], counts=[10**400])},
        {"missing": 10**400},
        {"top": [Counted(value="a", count=10**400)]},
    ],
    ids=["too few counts", "negative counts", "too many counted", "too many missing", "too many of a value"],
)
def test_a_profile_that_does_not_add_up_is_left_alone(profile: Profile, lie: dict[str, Any]) -> None:
    columns = [column.model_copy(update=lie) for column in profile.columns]
    assert moved(profile.model_copy(update={"columns": columns}), SIGNATURE.inputs, rows(LEAST_ROWS)) == []


def test_the_index_is_that_of_the_textbook_but_for_chance() -> None:
    then, now = np.array([5e5, 3e5, 2e5]), np.array([3e5, 3e5, 4e5])
    assert stability_index(Grouped(then, now)) == pytest.approx(0.2 * np.log(5 / 3) + 0.2 * np.log(2), abs=1e-4)
    assert stability_index(Grouped(then, then)) == 0.0
    assert stability_index(Grouped(np.array([50.0, 50]), np.array([48.0, 52]))) < CHANGED


@pytest.fixture
def tenant() -> Iterator[str]:
    """A schema that no tenant has."""
    schema = f"t_{uuid.uuid4().hex}"
    yield schema
    for key in valkey().scan_iter(f"tenantry:{schema}:*"):
        valkey().delete(key)


def served(signature: Signature = SIGNATURE) -> Any:
    pk = uuid.uuid4()
    return SimpleNamespace(pk=pk, pool_key=f"acme/{pk.hex}", signature=signature)


def batch(age: float = 31.0, city: str | None = "Rome") -> dict[str, np.ndarray]:
    return {"age": np.array([age]), "city": np.array([city], object), "member": np.array([True])}


def test_a_row_a_second_is_kept_as_numbers(tenant: str) -> None:
    samples, version, now = Samples(), served(), time.monotonic()
    for at in (0.0, 0.5, 1.1, 1.2, 2.2):
        samples.note(tenant, version, batch(30 + at, "Rome" if at else None), now + at)
    samples.keep()

    found = recent(tenant, {version.pk.hex: SIGNATURE})[version.pk.hex]

    assert sorted(found[:, 0].tolist()) == pytest.approx([30.0, 31.1, 32.2])
    assert np.nan_to_num(np.sort(found[:, 1]), nan=-1).tolist() == [code_of("Rome"), code_of("Rome"), -1.0]
    assert set(found[:, 2].tolist()) == {1.0}
    keys = list(valkey().scan_iter(f"tenantry:{tenant}:*"))
    assert not any("Rome" in str(row) for key in keys for row in valkey().lrange(key, 0, -1))


def test_what_is_kept_of_a_version_is_bounded_and_goes_by_itself(tenant: str) -> None:
    samples, version, now = Samples(), served(), time.monotonic()
    for second in range(2 * ROWS_A_SLOT):
        samples.note(tenant, version, batch(second), now + 2 * second)
    samples.keep()
    found = recent(tenant, {version.pk.hex: SIGNATURE})[version.pk.hex]
    assert len(found) == ROWS_A_SLOT
    assert found[:, 0].min() >= ROWS_A_SLOT  # the newest
    assert all(0 < valkey().ttl(key) <= SLOT_S * (SLOT_COUNT + 1) for key in valkey().scan_iter(f"tenantry:{tenant}:*"))
    tomorrow = time.time() + SLOT_S * SLOT_COUNT
    assert not len(recent(tenant, {version.pk.hex: SIGNATURE}, tomorrow)[version.pk.hex])


def test_rows_wait_while_valkey_is_away_but_not_all(tenant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    samples, version, now = Samples(), served(), time.monotonic()
    with monkeypatch.context() as patch:
        patch.setattr("inference.sampling.valkey", _away)
        for second in range(MOST_WAITING + 5):
            samples.note(tenant, version, batch(second), now + 2 * second)
            with pytest.raises(ConnectionError):
                samples.keep()
    samples.keep()
    found = recent(tenant, {version.pk.hex: SIGNATURE})[version.pk.hex]
    assert len(found) == MOST_WAITING
    assert found[:, 0].min() == 5


def _away() -> Any:
    raise ConnectionError


@pytest.mark.parametrize("shape", [(0,), (3,)])
def test_what_has_no_columns_is_left_alone(tenant: str, shape: tuple[int, ...]) -> None:
    tensor = Signature("tensor", (Field("rows", "float64", (-1, 4)),), (Field("prediction", "float64", (-1,)),))
    samples, version = Samples(), served(tensor)
    samples.note(tenant, version, np.zeros((*shape, 4)), time.monotonic())
    samples.note(tenant, empty := served(), {field.name: np.empty(0) for field in SIGNATURE.inputs}, time.monotonic())
    samples.keep()
    assert sampled_fields(tensor) == ()
    found = recent(tenant, {version.pk.hex: tensor, empty.pk.hex: SIGNATURE})
    assert [len(one) for one in found.values()] == [0, 0]
