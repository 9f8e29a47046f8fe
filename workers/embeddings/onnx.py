"""Just enough of the ONNX file format to hand a graph to onnxruntime: nodes, constants, inputs and outputs.

Called by `minilm`. A model is a protobuf message; the numbers below are those of onnx.proto3 (ir_version 9). Writing it
by hand is 60 lines; the `onnx` package and what it needs are 25 MB, for a graph that never changes.
"""

import struct
from collections.abc import Sequence
from typing import Any, Final

IR_VERSION: Final = 9
OPSET: Final = 17
MICROSOFT: Final = "com.microsoft"
"""Domain of onnxruntime's own operators."""

FLOAT, UINT8, INT8, INT32, INT64 = 1, 2, 3, 6, 7
"""TensorProto.DataType."""
_TYPES = {"float32": FLOAT, "uint8": UINT8, "int8": INT8, "int32": INT32, "int64": INT64}

_FLOAT_ATTRIBUTE, _INT_ATTRIBUTE, _INTS_ATTRIBUTE = 1, 2, 7
"""AttributeProto.AttributeType."""


class Graph:
    """Collects a graph; `model` is its file."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes: list[bytes] = []
        self._constants: list[bytes] = []
        self._inputs: list[bytes] = []
        self._outputs: list[bytes] = []
        self._made = 0

    def input(self, name: str, kind: int, shape: Sequence[str | int]) -> str:
        self._inputs.append(_value(name, kind, shape))
        return name

    def output(self, name: str, kind: int, shape: Sequence[str | int]) -> None:
        self._outputs.append(_value(name, kind, shape))

    def constant(self, array: Any) -> str:
        """`array` is a C-contiguous numpy array of one of the types above."""
        name = self._new("c")
        dims = b"".join(_number(1, size) for size in array.shape)
        data_type = _number(2, _TYPES[str(array.dtype)])
        self._constants.append(dims + data_type + _text(8, name) + _bytes(9, array.tobytes()))
        return name

    def node(self, operator: str, *inputs: str, domain: str = "", outputs: int = 1, **attributes: Any) -> Any:
        """The name of its output; a list of them when there are several. An input '' is left out."""
        names = [self._new("v") for _ in range(outputs)]
        encoded = b"".join(_text(1, name) for name in inputs) + b"".join(_text(2, name) for name in names)
        encoded += _text(3, names[0]) + _text(4, operator)
        encoded += b"".join(_bytes(5, _attribute(key, value)) for key, value in attributes.items())
        self._nodes.append(encoded + (_text(7, domain) if domain else b""))
        return names if outputs > 1 else names[0]

    def name_last(self, value: str, name: str) -> None:
        """Gives a value the name of an output."""
        self._nodes.append(_text(1, value) + _text(2, name) + _text(3, name) + _text(4, "Identity"))

    def model(self) -> bytes:
        graph = b"".join(_bytes(1, node) for node in self._nodes) + _text(2, self._name)
        graph += b"".join(_bytes(5, constant) for constant in self._constants)
        graph += b"".join(_bytes(11, each) for each in self._inputs)
        graph += b"".join(_bytes(12, each) for each in self._outputs)
        opsets = _bytes(8, _number(2, OPSET)) + _bytes(8, _text(1, MICROSOFT) + _number(2, 1))
        return _number(1, IR_VERSION) + _bytes(7, graph) + opsets

    def _new(self, prefix: str) -> str:
        self._made += 1
        return f"{prefix}{self._made}"


def _attribute(name: str, value: float | int | Sequence[int]) -> bytes:
    head = _text(1, name)
    if isinstance(value, float):
        return head + _key(2, 5) + struct.pack("<f", value) + _number(20, _FLOAT_ATTRIBUTE)
    if isinstance(value, int):
        return head + _number(3, value) + _number(20, _INT_ATTRIBUTE)
    return head + b"".join(_number(8, each) for each in value) + _number(20, _INTS_ATTRIBUTE)


def _value(name: str, kind: int, shape: Sequence[str | int]) -> bytes:
    """A ValueInfoProto; a size given by name may differ from call to call."""
    sizes = (_text(2, size) if isinstance(size, str) else _number(1, size) for size in shape)
    tensor = _number(1, kind) + _bytes(2, b"".join(_bytes(1, size) for size in sizes))
    return _text(1, name) + _bytes(2, _bytes(1, tensor))


def _key(field: int, wire_type: int) -> bytes:
    return _varint(field << 3 | wire_type)


def _number(field: int, value: int) -> bytes:
    return _key(field, 0) + _varint(value & (1 << 64) - 1)


def _bytes(field: int, value: bytes) -> bytes:
    return _key(field, 2) + _varint(len(value)) + value


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode())


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
