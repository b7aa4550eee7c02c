"""Gradients in parameters some of which are computed from others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge


def own_shares(params: Sequence[Tensor], by_params: Sequence[Tensor]) -> list[Tensor]:
    """The gradients to give to autograd, where some parameters are computed from others (as weights
    that a network makes are from the network's own parameters).

    Autograd itself hands on the gradient of a parameter to those that it was computed from; that
    share is taken off theirs. by_params: the whole gradient in each, by way of other parameters
    too.
    """
    shares = list(by_params)
    made = [p for p in params if not p.is_leaf]
    if not made or len(params) == 1:
        return shares
    edges = [(edge.node, edge.output_nr) for edge in map(get_gradient_edge, params)]
    if _edges_behind(made).isdisjoint(edges):
        return shares
    sources = [
        [i for i, edge in enumerate(edges) if edge in reached]
        for reached in (_edges_behind([p]) for p in params)
    ]
    # one that is computed from another has all of that one's sources, and more
    for last in sorted(range(len(params)), key=lambda i: -len(sources[i])):
        if sources[last]:
            made_of = [params[i] for i in sources[last]]
            handed_on = torch.autograd.grad(
                params[last], made_of, shares[last], retain_graph=True, allow_unused=True
            )
            for i, part in zip(sources[last], handed_on, strict=True):
                shares[i] = shares[i] if part is None else shares[i] - part
    return shares


def _edges_behind(tensors: Sequence[Tensor]) -> set[Any]:
    """All edges of the graph that the tensors were made by, as (node, number of its output)."""
    edges: set[Any] = set()
    nodes = {x.grad_fn for x in tensors} - {None}
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        assert node is not None
        for edge in node.next_functions:
            if edge[0] is None:
                continue
            edges.add(edge)
            if edge[0] not in nodes:
                nodes.add(edge[0])
                waiting.append(edge[0])
    return edges
