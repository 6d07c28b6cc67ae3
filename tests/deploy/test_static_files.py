"""Static files where the operator wants them: beside the web processes, or in a bucket that browsers can read."""

import sys
import urllib.request
from typing import Any

import boto3

from tests.deploy.test_commands import run
from tests.models_registry.conftest import s3_server

__all__ = ["s3_server"]  # a fixture

OPEN_TO_READERS = """{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*",
"Action": "s3:GetObject", "Resource": "arn:aws:s3:::%s/static/*"}]}"""


def test_static_files_can_lie_in_a_bucket(s3_server: dict[str, Any]) -> None:
    settings = {
        "STATIC_STORAGE": "s3",
        "AWS_STORAGE_BUCKET_NAME": s3_server["bucket_name"],
        "AWS_ACCESS_KEY_ID": s3_server["access_key"],
        "AWS_SECRET_ACCESS_KEY": s3_server["secret_key"],
        "AWS_S3_ENDPOINT_URL": s3_server["endpoint_url"],
        "AWS_S3_REGION_NAME": s3_server["region_name"],
    }
    few = [f"--ignore={name}" for name in ("drf_spectacular_sidecar", "unfold", "rest_framework", "js")]  # for time
    ended = run([sys.executable, "manage.py", "collectstatic", "--noinput", "--verbosity=0", *few], **settings)
    assert ended.returncode == 0, ended.stderr
    client = boto3.client(
        "s3",
        endpoint_url=s3_server["endpoint_url"],
        aws_access_key_id=s3_server["access_key"],
        aws_secret_access_key=s3_server["secret_key"],
        region_name=s3_server["region_name"],
    )
    client.put_bucket_policy(Bucket=s3_server["bucket_name"], Policy=OPEN_TO_READERS % s3_server["bucket_name"])
    find = "from django.templatetags.static import static; print(static('admin/css/base.css'))"
    address = run([sys.executable, "manage.py", "shell", "--no-imports", "-c", find], **settings).stdout.strip()
    assert "Signature" not in address
    with urllib.request.urlopen(address, timeout=10) as answer:
        assert b"--" in answer.read()
