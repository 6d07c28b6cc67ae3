"""The same request in the words of the tools that people use."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from runtimes.signature import STRING, Signature


def snippets(base_url: str, model: str, body: Mapping[str, Any], signature: Signature) -> list[tuple[str, str]]:
    """Pairs of a tool's name and what to type. base_url: the tenant's, without a slash at its end."""
    text = json.dumps(body, ensure_ascii=False)
    return [
        ("curl", _curl(f"{base_url}/api/v1/models/{model}/predict", text)),
        ("Python, requests", _requests(base_url, model, body)),
        ("Python, tritonclient", _tritonclient(base_url, model, signature)),
        ("MLflow scoring", _curl(f"{base_url}/models/{model}/invocations", text)),
    ]


def _curl(address: str, body: str) -> str:
    quoted = body.replace("'", "'\\''")
    return (
        f"curl {address} \\\n"
        '  -H "Authorization: Bearer $TOKEN" -H "Content-Type: application/json" \\\n'
        f"  -d '{quoted}'"
    )


def _requests(base_url: str, model: str, body: Mapping[str, Any]) -> str:
    return (
        "import os, requests\n\n"
        "answer = requests.post(\n"
        f'    "{base_url}/api/v1/models/{model}/predict",\n'
        f"    json={body!r},\n"
        '    headers={"Authorization": f"Bearer {os.environ[\'TOKEN\']}"},\n'
        "    timeout=30,\n"
        ")\n"
        "answer.raise_for_status()\n"
        'print(answer.json()["predictions"])'
    )


def _tritonclient(base_url: str, model: str, signature: Signature) -> str:
    address = urlsplit(base_url)
    inputs = "\n".join(_triton_input(signature, place) for place in range(min(len(signature.inputs), 3)))
    more = "" if len(signature.inputs) <= 3 else f"\n# and so on for each of the {len(signature.inputs)} inputs"
    return (
        "import os\nimport numpy as np\nimport tritonclient.http as triton\n\n"
        f'client = triton.InferenceServerClient("{address.netloc}{address.path}", ssl={address.scheme == "https"})\n'
        f"inputs = []\n{inputs}{more}\n"
        'headers = {"Authorization": f"Bearer {os.environ[\'TOKEN\']}"}\n'
        f'answer = client.infer("{model}", inputs, headers=headers)\n'
        f"print(answer.as_numpy({signature.outputs[0].name!r}))"
    )


def _triton_input(signature: Signature, place: int) -> str:
    field = signature.inputs[place]
    sizes = [1, *(max(size, 1) for size in field.shape[1:])]
    if field.dtype == STRING:
        rows = f'np.full({sizes}, "", dtype=object)'
    else:
        rows = f'np.zeros({sizes}, dtype="{field.dtype}")'
    return (
        f"rows = {rows}\n"
        f"inputs.append(triton.InferInput({field.name!r}, rows.shape, triton.np_to_triton_dtype(rows.dtype)))\n"
        "inputs[-1].set_data_from_numpy(rows)"
    )
