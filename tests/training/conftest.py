"""Datasets that are there, and requests for runs on them."""

import csv
import io
import random

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile


def customers(rows: int = 200, seed: int = 0) -> bytes:
    """A table whose column `left` (yes, no) follows from `age` and `city`."""
    rng = random.Random(seed)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["age", "city", "spent", "left"])
    for _ in range(rows):
        age, city = rng.randint(18, 80), rng.choice(["Rome", "Oslo", "Lima"])
        left = "yes" if age > 45 and city != "Oslo" else "no"
        writer.writerow([age, city, f"{rng.random() * 100:.2f}", left])
    return text.getvalue().encode()


def upload(client, name="customers", content=None, **extra):
    """POST a dataset as a user would."""
    file = SimpleUploadedFile(f"{name}.csv", customers() if content is None else content, "text/csv")
    return client.post("api/v1/datasets", {"name": name, "file": file}, **extra)


def run_body(**changes):
    """A run that can be carried out on `customers`, with changes."""
    body = {
        "trainer": "logistic_regression",
        "dataset": "customers",
        "target": "left",
        "params": {"C": 0.5},
        "validation": {"kind": "holdout", "fraction": 0.25, "seed": 7},
        "model": "churn",
    }
    return {name: value for name, value in (body | changes).items() if value is not None}


@pytest.fixture(autouse=True)
def _folders(tmp_path, settings):
    """Caches and spooled uploads in a folder of the test's own."""
    settings.BLOB_CACHE_ROOT = str(tmp_path / "cache")
    settings.FILE_UPLOAD_TEMP_DIR = str(tmp_path / "uploads")


@pytest.fixture
def scientist(acme, client_for):
    """A client of acme that may write."""
    return client_for(acme, "write")


@pytest.fixture
def dataset(acme, scientist):
    """acme's dataset `customers`, as its upload was answered."""
    answer = upload(scientist)
    assert answer.status_code == 201, answer.content
    return answer.json()
