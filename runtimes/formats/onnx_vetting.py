"""What an uploaded ONNX graph may hold. It narrows what reaches ONNX Runtime; the runner's limits are what protects."""

from __future__ import annotations

import math
from collections.abc import Iterator

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from runtimes.errors import ArtifactRejected, plain

MAX_BYTES = 1 << 30
MAX_NODES = 20_000
MAX_ELEMENTS = 1 << 28
DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})

# no Loop, Scan, If, Expand, Tile, Range, ConstantOfShape, Resize, Pad or Einsum: they hang a current ONNX Runtime, or
# make it take any amount of memory
OPERATORS_TEXT = """
Abs Acos Add And ArgMax ArgMin ArrayFeatureExtractor Asin Atan AveragePool BatchNormalization Binarizer Cast CastMap
CategoryMapper Ceil Clip Concat Constant Conv ConvTranspose Cos DepthToSpace DictVectorizer Div Dropout Elu Equal Erf
Exp FeatureVectorizer Flatten Floor GRU Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool
Greater GreaterOrEqual GroupNormalization HardSigmoid HardSwish Identity Imputer InstanceNormalization IsInf IsNaN LRN
LSTM LabelEncoder LayerNormalization LeakyRelu Less LessOrEqual LinearClassifier LinearRegressor Log LogSoftmax
LpNormalization MatMul Max MaxPool Mean Min Mish Mod Mul Neg Normalizer Not OneHotEncoder Or PRelu Pow RNN Reciprocal
ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare
Relu Reshape Round SVMClassifier SVMRegressor Scaler ScatterElements ScatterND Selu Shape Sigmoid Sign Sin Slice
Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh TfIdfVectorizer ThresholdedRelu TopK
Transpose TreeEnsemble TreeEnsembleClassifier TreeEnsembleRegressor Trilu Unsqueeze Where Xor ZipMap
"""
OPERATORS = frozenset(OPERATORS_TEXT.split())


def vet(data: bytes, also: frozenset[str] = frozenset()) -> ModelProto:
    """The parsed model, when nothing in it is beyond what is served. also: further operators that it may use.

    Raises:
        ArtifactRejected: naming what is.
    """
    if len(data) > MAX_BYTES:
        raise _refused(f"it is larger than {MAX_BYTES >> 20} MiB")
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's errors have no common public parent
        raise ArtifactRejected("unreadable_artifact", "The file is no readable ONNX model.") from error
    _check_model(model, OPERATORS | also)
    for tensor in _tensors(model.graph):
        _check_tensor(tensor)
    try:
        onnx.checker.check_model(data)
    except Exception as error:
        raise ArtifactRejected("unreadable_artifact", f"The ONNX model is not valid ({plain(error, 200)}).") from error
    return model


def _check_model(model: ModelProto, operators: frozenset[str]) -> None:
    if model.functions:
        raise _refused("it brings functions of its own")
    if not {opset.domain for opset in model.opset_import} <= DOMAINS:
        raise _refused("it uses operators of a foreign domain")
    if not model.graph.node or len(model.graph.node) > MAX_NODES:
        raise _refused(f"a graph has between 1 and {MAX_NODES} nodes")
    if model.graph.sparse_initializer:
        raise _refused("it holds sparse tensors")
    for node in model.graph.node:
        _check_node(node, operators)


def _check_node(node: NodeProto, operators: frozenset[str]) -> None:
    if node.domain not in DOMAINS or node.op_type not in operators:
        raise _refused(f"the operator {plain(f'{node.domain}:{node.op_type}', 80)} is not served")
    for attribute in node.attribute:
        if attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) or attribute.HasField("g"):
            raise _refused("it holds a graph within a graph")
        if attribute.HasField("sparse_tensor") or attribute.sparse_tensors or attribute.graphs:
            raise _refused("it holds sparse tensors or graphs in an attribute")


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _check_tensor(tensor: TensorProto) -> None:
    if tensor.data_location != TensorProto.DEFAULT or tensor.external_data:
        raise _refused("it keeps data in another file")
    if any(size < 0 for size in tensor.dims) or math.prod(tensor.dims) > MAX_ELEMENTS:
        raise _refused("it holds a tensor of an impossible size")


def _refused(why: str) -> ArtifactRejected:
    return ArtifactRejected("unsupported_operator", f"The ONNX model cannot be served: {why}.")
