"""The Open Inference Protocol: its datatypes alone, then every call of the real tritonclient over real HTTP."""

import contextlib
import gzip
import json
import random
import time
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import requests
import tritonclient.http as triton

from common.errors import Malformed, PlatformError, TooLarge, UnsupportedMedia
from inference.open_inference import datatypes
from inference.open_inference import requests as infer_requests
from tenants.tables import listener
from tests.clients import TenantClient
from tests.inference.conftest import by_plan, fitted, registered
from tests.inference.serving import served

ROWS = np.array([[2.0, 0, 0, 0], [-2.0, 0, 0, 0]])
NUMERIC = sorted(datatypes.DTYPES)


# --- the wire, without a model ---------------------------------------------------------------------------------------


def body_of(*inputs: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"inputs": list(inputs), **more}).encode()


def code_of(content: bytes, json_length: str | None = None) -> str:
    with pytest.raises(PlatformError) as caught:
        infer_requests.read(content, json_length)
    return caught.value.message


@pytest.mark.parametrize("datatype", NUMERIC)
def test_every_numeric_datatype_goes_both_ways_in_json_and_in_bytes(datatype):
    dtype = datatypes.DTYPES[datatype]
    values = np.array([0, 1, 1], dtype=dtype) if dtype.kind == "b" else np.array([0, 1, 100], dtype=dtype)
    as_json = infer_requests.read(
        body_of({"name": "x", "shape": [3], "datatype": datatype, "data": values.tolist()}), None
    ).tensors[0]
    head = body_of({"name": "x", "shape": [3], "datatype": datatype, "parameters": {"binary_data_size": values.nbytes}})
    as_bytes = infer_requests.read(head + bytes(datatypes.to_bytes(values)), str(len(head))).tensors[0]
    for tensor in (as_json, as_bytes):
        assert (tensor.values.dtype, tensor.values.tolist()) == (dtype, values.tolist())


def test_bfloat16_comes_as_bytes_alone():
    data = np.array([0x3FC0, 0xC000], "<u2").tobytes()  # 1.5 and -2
    assert datatypes.from_bytes(memoryview(data), "BF16", 2, "x").tolist() == [1.5, -2.0]
    assert "no BF16" in code_of(body_of({"name": "x", "shape": [1], "datatype": "BF16", "data": [1.5]}))


def test_texts_go_both_ways():
    texts = np.array(["", "ä€", "long" * 100], dtype=object)
    data = memoryview(bytes(datatypes.to_bytes(texts)))
    assert datatypes.from_bytes(data, "BYTES", 3, "x").tolist() == texts.tolist()


def test_numbers_are_read_where_they_lie():
    head = body_of({"name": "x", "shape": [2, 2], "datatype": "FP32", "parameters": {"binary_data_size": 16}})
    content = head + np.arange(4, dtype="<f4").tobytes()
    tensor = infer_requests.read(content, str(len(head))).tensors[0]
    assert np.shares_memory(tensor.values, np.frombuffer(content, np.uint8))


def test_nested_data_is_what_flat_data_is():
    flat, nested = (
        infer_requests.read(body_of({"name": "x", "shape": [2, 1, 2], "datatype": "INT64", "data": data}), None)
        for data in ([1, 2, 3, 4], [[[1, 2]], [[3, 4]]])
    )
    assert flat.tensors[0].values.tolist() == nested.tensors[0].values.tolist() == [[[1, 2]], [[3, 4]]]


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        ({"datatype": "FP32", "shape": [2], "data": [1.0]}, "1 values"),
        ({"datatype": "FP32", "shape": [2, 2], "data": [[1, 2, 3], [4]]}, "not of the shape"),
        ({"datatype": "FP32", "shape": [1], "data": ["1.0"]}, "str"),
        ({"datatype": "INT8", "shape": [1], "data": [1.5]}, "float"),
        ({"datatype": "INT8", "shape": [1], "data": [True]}, "bool"),
        ({"datatype": "INT8", "shape": [1], "data": [128]}, "does not fit"),
        ({"datatype": "UINT64", "shape": [1], "data": [-1]}, "does not fit"),
        ({"datatype": "FP32", "shape": [1], "data": [1e39]}, "does not fit"),
        ({"datatype": "BOOL", "shape": [1], "data": [1]}, "int"),
        ({"datatype": "BYTES", "shape": [1], "data": [1]}, "int"),
        ({"datatype": "FP12", "shape": [1], "data": [1]}, "FP12"),
        ({"datatype": None, "shape": [1], "data": [1]}, "datatype"),
        ({"datatype": "FP32", "shape": [-1], "data": [1]}, "shape"),
        ({"datatype": "FP32", "shape": [2**31, 2**31, 2**31], "data": [1]}, "shape"),
        ({"datatype": "FP32", "shape": [], "data": [1]}, "shape"),
        ({"datatype": "FP32", "shape": [1]}, "no data"),
        ({"datatype": "FP32", "shape": [1], "data": [1], "parameters": []}, "parameters"),
        ({"datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}}, "bytes are left"),
        ({"datatype": "FP32", "shape": [1], "parameters": {"shared_memory_region": "r"}}, "shared memory"),
    ],
)
def test_a_tensor_that_is_not_what_it_says_is_refused(tensor, words):
    assert words in code_of(body_of({"name": "x"} | tensor))


@pytest.mark.parametrize(
    ("data", "shape", "words"),
    [
        (b"\x05\0\0\0abc", [1], "longer"),
        (b"\x01\0\0\0abc", [1], "more than"),
        (b"\x01\0\0\0a", [2], "too few"),
        (b"\x01\0\0\0a\x01", [1], "more than"),
        (b"\x02\0\0\0\xff\xfe", [1], "UTF-8"),
        (b"\xff\xff\xff\xff", [1], "longer"),
        (b"\x01\0\0\0a\0", [1, 2**30], "too few"),
    ],
)
def test_texts_that_lie_about_their_lengths_are_refused(data, shape, words):
    head = body_of({"name": "x", "shape": shape, "datatype": "BYTES", "parameters": {"binary_data_size": len(data)}})
    assert words in code_of(head + data, str(len(head)))


@pytest.mark.parametrize("length", ["-1", "x", "1e2", "99999", "\u0663", "9" * 30])
def test_a_header_that_lies_about_the_json_is_refused(length):
    code_of(body_of({"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}), length)


def test_bytes_that_no_tensor_claims_are_refused():
    head = body_of({"name": "x", "shape": [1], "datatype": "FP32", "data": [1]})
    assert "more than its tensors" in code_of(head + b"rest", str(len(head)))


def test_a_body_is_decompressed_if_it_is_compressed_whatever_the_header_says():
    plain = b'{"inputs": []}'
    for encoding, compressed in (("gzip", gzip.compress(plain)), ("deflate", zlib.compress(plain))):
        assert infer_requests.decompressed(compressed, encoding, 1000) == plain
        assert infer_requests.decompressed(plain, encoding, 1000) == plain
    with pytest.raises(UnsupportedMedia):
        infer_requests.decompressed(plain, "br", 1000)
    with pytest.raises(TooLarge):
        infer_requests.decompressed(gzip.compress(bytes(10_000_000)), "gzip", 1000)
    with pytest.raises(Malformed):
        infer_requests.decompressed(gzip.compress(plain)[:-9], "gzip", 1000)


def test_no_change_of_a_body_breaks_the_reader():
    """Whatever bytes come: they are read, or refused as malformed."""
    head = body_of(
        {"name": "x", "shape": [2, 1], "datatype": "BYTES", "parameters": {"binary_data_size": 10}},
        {"name": "y", "shape": [2], "datatype": "FP32", "data": [1, 2]},
        {"name": "z", "shape": [2], "datatype": "BOOL", "parameters": {"binary_data_size": 2}},
        id="1",
        outputs=[{"name": "p", "parameters": {"binary_data": True}}],
    )
    whole = head + b"\x01\0\0\0a\x01\0\0\0b" + b"\x01\0"
    infer_requests.read(whole, str(len(head)))
    chance = random.Random(7)
    for _ in range(3_000):
        body = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(body))
            body[at : at + chance.choice((0, 1, 1, 1, 9))] = chance.choice(
                (b"", b"\xff", b"9", b"[", b'"', b"-", b"\0")
            )
        with contextlib.suppress(PlatformError):
            infer_requests.read(bytes(body), str(len(head) + chance.randint(-2, 2)))


# --- the real client -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Served:
    """A tenant over real HTTP: `churn` (a tensor of 4 features) has the versions 1, which serves, and 2; `people` takes
    named columns; `idle` has a version that does not serve."""

    address: str
    base_path: str
    token: str

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def client(self) -> triton.InferenceServerClient:
        return triton.InferenceServerClient(f"{self.address}{self.base_path}")

    def url(self, path: str) -> str:
        return f"http://{self.address}{self.base_path}/{path}"


@pytest.fixture(scope="module")
def tenant(furnished) -> Any:
    from models_registry import services
    from tenants.scope import tenant_scope

    with tenant_scope(furnished.tenant):
        registered("churn", fitted("no", "yes"))
        registered("idle", fitted())
        people = registered("people", by_plan(), input_example={"age": [20], "plan": ["basic"]})
        services.activate(version=people, actor="tests")
    return furnished


@pytest.fixture(scope="module")
def server(tenant):
    with served() as address:
        yield Served(address, tenant.tenant.base_path, tenant.token)


@pytest.fixture
def client(server):
    with server.client() as client:
        yield client


def tensor(name: str, values: np.ndarray, datatype: str, binary: bool = True) -> triton.InferInput:
    sent = triton.InferInput(name, list(values.shape), datatype)
    sent.set_data_from_numpy(values, binary_data=binary)
    return sent


def input_name(client, server, model="churn"):
    return client.get_model_metadata(model, headers=server.headers)["inputs"][0]["name"]


@pytest.fixture
def ask(client, server):
    name = input_name(client, server)

    def infer(values: np.ndarray = ROWS, datatype: str = "FP64", binary: bool = True, **options: Any) -> Any:
        sent = [tensor(name, values, datatype, binary)]
        return client.infer("churn", sent, headers=dict(server.headers), **options)

    return infer


def test_the_server_is_healthy_and_says_what_it_is(client, server):
    assert client.is_server_live(headers=server.headers)
    assert client.is_server_ready(headers=server.headers)
    metadata = client.get_server_metadata(headers=server.headers)
    assert (metadata["name"], metadata["extensions"]) == ("tenantry", ["binary_tensor_data", "model_repository"])
    assert requests.get(server.url("v2/health/ready"), headers=server.headers, timeout=10).json()["ready"] is True


def test_a_model_says_what_it_takes(client, server):
    metadata = client.get_model_metadata("churn", headers=server.headers)
    assert (metadata["name"], metadata["versions"], metadata["platform"]) == ("churn", ["1", "2"], "sklearn")
    assert [(one["datatype"], one["shape"]) for one in metadata["inputs"]] == [("FP64", [-1, 4])]
    assert metadata["outputs"][-1] == {"name": "probabilities", "datatype": "FP64", "shape": [-1, 2]}
    columns = client.get_model_metadata("people", headers=server.headers)["inputs"]
    assert [(one["name"], one["datatype"]) for one in columns] == [("age", "FP64"), ("plan", "BYTES")]


def test_a_model_is_ready_if_it_serves_and_a_version_if_it_could(client, server):
    ready = {
        (model, version): client.is_model_ready(model, version, headers=server.headers)
        for model, version in [("churn", ""), ("churn", "2"), ("churn", "9"), ("idle", ""), ("idle", "1"), ("no", "")]
    }
    assert [key for key, is_ready in ready.items() if is_ready] == [("churn", ""), ("churn", "2"), ("idle", "1")]


@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize("binary_in", [True, False])
def test_it_answers_in_bytes_and_in_json(ask, binary_in, binary_out):
    outputs = [triton.InferRequestedOutput("prediction", binary_data=binary_out)]
    answer = ask(binary=binary_in, outputs=outputs, request_id="42")
    texts = [one.decode() if isinstance(one, bytes) else one for one in answer.as_numpy("prediction").tolist()]
    assert texts == ["yes", "no"]
    response = answer.get_response()
    assert (response["model_name"], response["model_version"], response["id"]) == ("churn", "1", "42")


def test_a_version_is_named_in_the_path(ask):
    answer = ask(model_version="2")
    assert (answer.get_response()["model_version"], answer.as_numpy("prediction").tolist()) == ("2", [b"no", b"yes"])


@pytest.mark.parametrize("binary", [True, False])
def test_probabilities_are_an_output_that_is_asked_for(ask, binary):
    outputs = [triton.InferRequestedOutput("probabilities", binary_data=binary)]
    found = ask(outputs=outputs)
    assert [one["name"] for one in found.get_response()["outputs"]] == ["probabilities"]
    assert found.as_numpy("probabilities") == pytest.approx(fitted().predict_proba(ROWS))


@pytest.mark.parametrize("datatype", [name for name in NUMERIC if name != "BOOL"])
def test_numbers_of_any_type_that_fit_are_taken(ask, datatype):
    values = np.array([[2, 0, 0, 0], [0, 0, 0, 0]], dtype=datatypes.DTYPES[datatype])
    assert ask(values, datatype).as_numpy("prediction").tolist()[0] == b"yes"


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_requests_and_answers_are_compressed(ask, server, client, algorithm):
    many = np.repeat(ROWS, 2_000, axis=0)
    answer = ask(many, request_compression_algorithm=algorithm, response_compression_algorithm=algorithm)
    assert answer.as_numpy("prediction").shape == (4_000,)
    body = {"inputs": [{"name": input_name(client, server), "shape": [4000, 4], "datatype": "FP64",
                        "data": many.ravel().tolist()}]}  # fmt: skip
    headers = server.headers | {"Accept-Encoding": algorithm}
    raw = requests.post(server.url("v2/models/churn/infer"), json=body, headers=headers, timeout=30, stream=True)
    assert raw.headers["Content-Encoding"] == algorithm
    assert len(raw.raw.read(decode_content=False)) < 10_000


def test_a_header_left_over_from_a_compressed_call_does_no_harm(client, server):
    headers = dict(server.headers)
    sent = [tensor(input_name(client, server), ROWS, "FP64")]
    client.infer("churn", sent, headers=headers, request_compression_algorithm="gzip")
    assert "gzip" in headers.values()  # the client has changed them
    assert client.infer("churn", sent, headers=headers).as_numpy("prediction").tolist() == [b"yes", b"no"]


def test_each_column_is_a_tensor(client, server):
    for binary in (True, False):
        sent = [
            tensor("plan", np.array([["plus"], ["basic"]], dtype=object), "BYTES", binary),
            tensor("age", np.array([65, 25], dtype=np.int32), "INT32", binary),
        ]
        answer = client.infer("people", sent, headers=dict(server.headers))
        assert answer.as_numpy("prediction").tolist() == [1, 0]


def test_a_body_of_bytes_alone_is_the_one_input(server):
    headers = server.headers | {"Inference-Header-Content-Length": "0"}
    answer = requests.post(
        server.url("v2/models/churn/infer"), data=ROWS.astype("<f8").tobytes(), headers=headers, timeout=30
    )
    head = json.loads(answer.content[: int(answer.headers["Inference-Header-Content-Length"])])
    assert (head["outputs"][0]["datatype"], head["outputs"][0]["shape"]) == ("BYTES", [2])


def test_asynchronous_calls_answer_too(client, server):
    sent = [tensor(input_name(client, server), ROWS, "FP64")]
    waiting = [client.async_infer("churn", sent, headers=dict(server.headers)) for _ in range(4)]
    assert all(one.get_result().as_numpy("prediction").tolist() == [b"yes", b"no"] for one in waiting)


def test_the_repository_lists_loads_and_unloads(client, server):
    index = {entry["name"]: entry for entry in client.get_model_repository_index(headers=server.headers)}
    assert (index["churn"]["version"], index["churn"]["state"]) == ("1", "READY")
    assert index["idle"]["state"] == "UNAVAILABLE"
    only_ready = requests.post(
        server.url("v2/repository/index"), json={"ready": True}, headers=server.headers, timeout=10
    )
    assert {entry["name"] for entry in only_ready.json()} == {"churn", "people"}
    client.unload_model("churn", headers=server.headers)
    client.load_model("churn", headers=server.headers)
    with pytest.raises(triton.InferenceServerException, match="No version of idle is active"):
        client.load_model("idle", headers=server.headers)


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"model_name": "nope"}, "404", "nope"),
        ({"model_version": "9"}, "404", "version 9"),
        ({"model_version": "x"}, "404", "version 'x'"),
        ({"model_name": "idle"}, "409", "active"),
        ({"outputs": [triton.InferRequestedOutput("other")]}, "404", "no output 'other'"),
        ({"outputs": [triton.InferRequestedOutput("prediction", class_count=2)]}, "400", "probabilities"),
        ({"headers": {}}, "401", "token"),
        ({"headers": {"Authorization": "Bearer nonsense"}}, "401", "not valid"),
        ({"timeout": 1}, "504", "deadline"),
    ],
)
def test_mistakes_are_told_in_the_protocols_own_words(client, server, change, status, words):
    sent = [tensor(input_name(client, server), ROWS, "FP64")]
    options = {"model_name": "churn", "inputs": sent, "headers": dict(server.headers)} | change
    with pytest.raises(triton.InferenceServerException) as caught:
        client.infer(**options)
    assert (caught.value.status(), words in str(caught.value)) == (status, True), str(caught.value)


@pytest.mark.parametrize(
    ("values", "datatype", "words"),
    [
        (ROWS[:, :3], "FP64", "shape"),
        (ROWS[:0], "FP64", "no row"),
        (ROWS * np.nan, "FP64", "missing"),
        (np.array([["a", "b", "c", "d"]], dtype=object), "BYTES", "takes FP64"),
    ],
)
def test_rows_that_the_model_does_not_take_are_refused(ask, values, datatype, words):
    with pytest.raises(triton.InferenceServerException, match=words) as caught:
        ask(values, datatype)
    assert caught.value.status() == "422"


def test_whatever_is_not_there_is_not_there_in_the_protocols_form(client, server):
    with pytest.raises(triton.InferenceServerException) as caught:
        client.get_inference_statistics(headers=server.headers)
    assert caught.value.status() == "404"
    for path in ("v2/nothing", "v2/models/a/b/c", "v2/"):
        answer = requests.get(server.url(path), headers=server.headers, timeout=10)
        assert (answer.status_code, type(answer.json()["error"])) == (404, str), path


def test_an_unknown_tenant_answers_as_a_known_one(server):
    known = requests.get(server.url("v2"), timeout=10)
    unknown = requests.get(f"http://{server.address}/t/nobody-here/v2", timeout=10)
    assert (known.status_code, unknown.status_code) == (401, 401)
    assert known.json() == unknown.json()


def test_a_warm_request_asks_the_database_nothing(tenant, django_assert_num_queries):
    client, name = TenantClient(tenant.tenant.base_path, tenant.token), input_of(tenant)
    rows = {"name": name, "shape": [2, 4], "datatype": "FP64", "data": ROWS.tolist()}
    asked = [("v2/models/churn/infer", {"inputs": [rows]}), ("models/churn/invocations", {"instances": ROWS.tolist()})]
    deadline = time.monotonic() + 20
    while not listener.is_believable():
        assert time.monotonic() < deadline, "changes are not heard"
        time.sleep(0.01)
    for path, body in asked:
        assert client.post_json(path, body).status_code == 200
        with django_assert_num_queries(0):
            assert client.post_json(path, body).status_code == 200


def input_of(tenant):
    return TenantClient(tenant.tenant.base_path, tenant.token).get("v2/models/churn").json()["inputs"][0]["name"]


def test_scopes_hold(tenant, client_for):
    reader, predictor = (client_for(tenant.tenant, scope) for scope in ("read", "predict"))
    assert reader.post_json("v2/models/churn/infer", {}).status_code == 403
    assert predictor.get("v2/models/churn").status_code == 200
    assert predictor.post_json("v2/repository/index", {}).status_code == 403
    assert reader.post_json("v2/repository/models/churn/unload", {}).status_code == 403
    assert predictor.get("v2/models/churn/infer").status_code == 405
