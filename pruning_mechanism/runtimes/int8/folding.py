"""Weights of products as constants of an ONNX graph, where it computes them of other constants.

A tower that embeds only some patches multiplies with the patch embedding's weight, reshaped and
transposed. The exporter folds that into a constant for small weights alone, and NNCF finds no
weight to round where it is left.
"""

from typing import Any

import numpy as np

PRODUCTS = ("MatMul", "Gemm", "Conv")
"""Operations whose second input may be a weight."""


def fold_weights(model: Any) -> None:
    """Put a constant, in place, where the weight of a product is computed of constants alone."""
    from onnx import helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    for name in {node.input[1] for node in graph.node if node.op_type in PRODUCTS}:
        steps = None if name in constants else _steps(name, constants, makers)
        if steps is None:
            continue
        given = {each for step in steps for each in step.input if each in constants}
        part = helper.make_graph(
            steps,
            "weight",
            [],
            [helper.make_empty_tensor_value_info(name)],
            [constants[each] for each in sorted(given)],
        )
        made = helper.make_model(part, opset_imports=model.opset_import)
        (weight,) = map(np.asarray, ReferenceEvaluator(made).run(None, {}))
        graph.node.remove(makers[name])
        graph.initializer.append(numpy_helper.from_array(weight, name))
    _drop_unread(graph)


def _steps(name: str, constants: dict[str, Any], makers: dict[str, Any]) -> list[Any] | None:
    """The nodes that compute a tensor, in order; None: not of constants alone."""
    if name not in makers:  # an input of the graph
        return None
    steps: dict[str, Any] = {}
    wanted = [name]
    while wanted:
        node = makers[wanted[-1]]
        inputs = [makers.get(each) for each in node.input if each and each not in constants]
        if None in inputs:
            return None
        before = [each.output[0] for each in inputs if each and each.output[0] not in steps]
        if before:  # its inputs first, of which another step may be made as well
            wanted += before
        else:
            steps[node.output[0]] = node
            wanted.pop()
    return list(steps.values())


def _drop_unread(graph: Any) -> None:
    """Leave out the nodes and constants that nothing reads any more."""
    outputs = {output.name for output in graph.output}
    while True:
        read = outputs | {name for node in graph.node for name in node.input}
        unread = [node for node in graph.node if read.isdisjoint(node.output)]
        if not unread:
            break
        for node in unread:
            graph.node.remove(node)
    for tensor in [each for each in graph.initializer if each.name not in read]:
        graph.initializer.remove(tensor)
