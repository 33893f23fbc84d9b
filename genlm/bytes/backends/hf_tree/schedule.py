"""What a request for some contexts needs: which can be run together, and what is to be run."""

from __future__ import annotations

from collections.abc import Iterator

from genlm.bytes.contexts.tree import ContextNode

__all__ = ["nodes_to_run", "split_batch"]


def split_batch(nodes: list[ContextNode], most_nodes: int, most_slots: int) -> Iterator[list[ContextNode]]:
    """Nodes of one tree that can be evaluated together, short contexts first.

    Each part asks for at most `most_nodes`, and has at most `most_slots` nodes on the paths to them, so that
    it fits into the cache; a single context may be longer.
    """
    for first in range(0, len(nodes), most_nodes):
        yield from _fitting(nodes[first : first + most_nodes], most_slots)


def _fitting(nodes: list[ContextNode], most_slots: int) -> Iterator[list[ContextNode]]:
    half = len(nodes) // 2
    if half and _exceeds(nodes, most_slots):
        yield from _fitting(nodes[:half], most_slots)
        yield from _fitting(nodes[half:], most_slots)
    else:
        yield nodes


def _exceeds(nodes: list[ContextNode], most: int) -> bool:
    """Whether there are more than `most` nodes on the paths to `nodes`."""
    if sum(node.depth for node in nodes) <= most:
        return False
    seen: set[ContextNode] = set()
    for start in nodes:
        node = start
        while node.parent is not None and node not in seen and len(seen) <= most:
            seen.add(node)
            node = node.parent
    return len(seen) > most


def nodes_to_run(wanted: list[ContextNode], clock: int) -> list[ContextNode]:
    """The nodes to run, parents first: those wanted, and those on the way to them that have no slot.

    They, and the nodes with slots that they descend from, are marked as used at `clock`. Nodes further up
    are not walked; they are marked when something is to be evicted (`KVCache`).
    """
    new: dict[ContextNode, None] = dict.fromkeys(wanted)
    for start in wanted:
        node = start.parent
        while node is not None and node.parent is not None and node.slot is None and node not in new:
            new[node] = None
            node = node.parent
        if node is not None:
            node.used = clock
    for node in new:
        node.used = clock
    return sorted(new, key=lambda n: n.depth)
