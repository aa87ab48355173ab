"""The constants of an ONNX graph, read and replaced by name."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from onnx import GraphProto, numpy_helper


class Constants:
    """A view of a graph's initialisers; what is added is never written over another."""

    def __init__(self, graph: GraphProto) -> None:
        """Index a graph.

        Args:
            graph: is changed in place by `add` and `drop_unused`.
        """
        self._graph = graph
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}

    def __contains__(self, name: str) -> bool:
        """Whether a name is a constant's."""
        return name in self._tensors

    def value(self, name: str) -> NDArray[np.float64]:
        """A constant as float64, in its own shape.

        Args:
            name: of the tensor.
        """
        array: NDArray[np.float64] = numpy_helper.to_array(self._tensors[name]).astype(np.float64)
        return array

    def scalar(self, name: str) -> float | None:
        """A constant of one value; None where the name is no such constant.

        Args:
            name: of the tensor.
        """
        if name not in self._tensors or self.value(name).size != 1:
            return None
        return float(self.value(name).ravel()[0])

    def add(self, name: str, values: ArrayLike, dtype: type[np.generic] = np.float32) -> str:
        """A new constant.

        Args:
            name: wished for; one that is taken gets a number behind it.
            values: of the tensor.
            dtype: that it is stored in.

        Returns:
            The name that it got.
        """
        free = name
        while free in self._tensors:
            free = f"{name}_{len(self._tensors)}"
        tensor = numpy_helper.from_array(np.asarray(values, dtype=dtype), free)
        self._graph.initializer.append(tensor)
        self._tensors[free] = tensor
        return free

    def drop_unused(self) -> None:
        """Take out constants that no node reads."""
        used = {name for node in self._graph.node for name in node.input}
        kept = [tensor for tensor in self._graph.initializer if tensor.name in used]
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept)
        self._tensors = {tensor.name: tensor for tensor in self._graph.initializer}
