"""A tree of contexts in a KV cache whose cells belong to sequences.

llama.cpp lets a cell of its cache belong to any set of sequences, of which there are at most 256, and a token
sees the cells of its own sequence before it. So **one sequence is the path to one leaf** of the tree of
contexts that have cells; a context that branches is in the sequences of all leaves below it. A new branch is
a sequence that is copied up to where it leaves another: metadata only. A leaf that is gone on with keeps its
sequence.

**Invariants.** Each leaf has one sequence and each sequence in use one leaf. Every ancestor of a context with
a cell has one. At most `n_cells` are in use. Positions of a sequence have no gaps: llama.cpp insists on it.

**Cells are never filled twice**, so that those of a context lie in the order of its tokens. Attention sums in
the order of the cells, whose last digits decide how activations are rounded to eight bits in the next
layer: in another order a probability can be off by 0.01. In this one it is to the bit what it is alone. So
what is given up stays where it is, in no sequence that is looked at. When no cells are left, all that is in
use is copied out and back in without gaps, in its order, into a larger cache while it may grow (`_repack`).
It is copied as a whole: of a single sequence llama.cpp copies no more than the sliding window before its end,
and whoever branches off before that would not see what it has to.

**Giving up**, where sequences or cells are short, goes by leaves, the least recently run first: back to where
its path branches, or to a context that the request goes on from. So what is shared lives while anything below
it does.

**Cost.** Python's share is a few operations for each context and each new token; walking down from a
context to some leaf, to copy its sequence, is as long as that leaf is far.

A context whose cell is there, but whose log-probabilities are not (any more), is run again: a leaf in its
place; another, beside those that go on from it, in a sequence that is given back at once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from genlm.bytes.contexts.tree import ContextNode

__all__ = ["Memory", "Request", "Run", "SequenceTree"]


@runtime_checkable
class Memory(Protocol):
    """What is done to the cells."""

    def copy(self, source: int, target: int, length: int) -> None:
        """The first `length` cells of a sequence belong to another one too."""

    def remove(self, sequence: int, start: int) -> None:
        """The cells of a sequence from a position on do not belong to it any more. They stay filled."""

    def repack(self, least: int) -> int:
        """Only cells of sequences are filled, in their order; there are so many at least, if there may be.

        llama.cpp then looks for free cells from the first on, until something has been run, and takes one for
        free whose only sequence, be it that of what is given up, has a sliding window that has left it.

        Returns:
            How many there are.
        """


@dataclass
class Run:
    """A token to be run.

    Attributes:
        node: the context that it ends.
        sequences: those that it belongs to.
        wanted: whether the logits after it are.
    """

    node: ContextNode
    sequences: list[int] = field(default_factory=list)
    wanted: bool = False


@dataclass
class Request:
    """What is to be run, parents first, and what becomes of the sequences then.

    Attributes:
        runs: the tokens.
        leaves: the new leaves, with the sequence of each and where it leaves what was there.
        going_on: leaves that are gone on with, and so are leaves no longer.
        beside: sequences that are given back at once.
        reused: contexts with cells on the way, which need not be run.
    """

    runs: list[Run]
    leaves: list[tuple[ContextNode, int, ContextNode]]
    going_on: dict[ContextNode, int]
    beside: list[int]
    reused: int


class SequenceTree:
    """Which contexts have cells, and in which sequences.

    Args:
        memory: the cells.
        n_sequences: how many sequences there are.
        n_cells: how many cells there may be.
        begun_with: how many there are; None for all.

    Attributes:
        filled: cells in use, with those that nobody needs any more.
        children: the contexts that have cells, each with its children that have.
        tips: the leaves with their sequences, the least recently run first.
        evictions: contexts whose cells have been given up.
    """

    def __init__(self, memory: Memory, n_sequences: int, n_cells: int, begun_with: int | None = None) -> None:
        self._memory = memory
        self._n_sequences, self._n_cells = n_sequences, n_cells
        self._there = n_cells if begun_with is None else begun_with
        self.evictions = 0
        self.clear()

    def clear(self) -> None:
        """Forget all; whoever calls it has emptied the memory."""
        self.children: dict[ContextNode, dict[ContextNode, None]] = {}
        self.tips: OrderedDict[ContextNode, int] = OrderedDict()
        self.filled = 0
        self._free = list(reversed(range(self._n_sequences)))

    # -- a request --------------------------------------------------------------------------------------

    def begin(self, wanted: Sequence[ContextNode]) -> Request:
        """What running some contexts takes. It must be followed by `commit`, or `clear` where that failed.

        Args:
            wanted: contexts of one tree; with their ancestors, and one more each, they must fit into the
                cells, and there must be twice as many sequences as contexts.
        """
        for node in sorted(wanted, key=lambda n: -n.depth):
            if node in self.tips:
                self._shorten(node)
        # A new leaf is a context that is wanted, so there are no more of them than those.
        self._make_room(len(wanted), _bases(*self._to_run(wanted)))
        new, beside = self._to_run(wanted)  # one to be run beside others may have been given up with them
        if self.filled + len(new) + len(beside) > self._there:
            self._repack(len(new) + len(beside) + len(wanted), _bases(new, beside))
            new, beside = self._to_run(wanted)
        # From here on nothing is given up until it has been run: see `Memory.repack`.
        bases = _bases(new, beside)
        inner = {node.parent for node in new}
        leaves = [node for node in new if node not in inner]
        ask = set(wanted)
        runs = {node: Run(node, wanted=node in ask) for node in sorted(new, key=lambda n: n.depth)}
        request = Request(list(runs.values()), [], {}, [], _ancestors(bases))
        for leaf in leaves:
            node = leaf
            while node.parent in runs:
                node = node.parent
            assert node.parent is not None  # the root has no token
            sequence = self._sequence_for(node.parent, request)
            request.leaves.append((leaf, sequence, node.parent))
            for step in _path(leaf, node.parent):
                runs[step].sequences.append(sequence)
        for node in beside:
            assert node.parent is not None
            sequence = self._copied(node.parent)
            request.beside.append(sequence)
            request.runs.append(Run(node, [sequence], wanted=True))
        return request

    def commit(self, request: Request) -> None:
        """The request has been run: its contexts have cells."""
        self.filled += len(request.runs)
        for run in request.runs[: len(request.runs) - len(request.beside)]:
            self.children[run.node] = {}
            assert run.node.parent is not None
            if run.node.parent in self.children:
                self.children[run.node.parent][run.node] = None
        for base in request.going_on:
            del self.tips[base]
        for leaf, sequence, _ in request.leaves:
            self.tips[leaf] = sequence
        self._give_back(request.beside)

    # -- inside -----------------------------------------------------------------------------------------

    def _to_run(self, wanted: Sequence[ContextNode]) -> tuple[dict[ContextNode, None], list[ContextNode]]:
        new: dict[ContextNode, None] = {}
        beside = []
        for start in wanted:
            if start in self.children:
                beside.append(start)
                continue
            node: ContextNode | None = start
            while node is not None and node.depth and node not in self.children and node not in new:
                new[node] = None
                node = node.parent
        return new, beside

    def _sequence_for(self, base: ContextNode, request: Request) -> int:
        """A sequence for a new leaf below `base`: that of `base` for the first, if it was a leaf itself."""
        if base in self.tips and base not in request.going_on:
            request.going_on[base] = self.tips[base]
            return self.tips[base]
        return self._copied(base)

    def _copied(self, base: ContextNode) -> int:
        sequence = self._free.pop()
        if base.depth:
            self._memory.copy(self._through(base), sequence, base.depth)
        return sequence

    def _through(self, node: ContextNode) -> int:
        """A sequence that a context with a cell belongs to."""
        while node not in self.tips:
            node = next(iter(self.children[node]))
        return self.tips[node]

    def _give_back(self, sequences: Collection[int]) -> None:
        for sequence in sequences:
            self._memory.remove(sequence, 0)
            self._free.append(sequence)

    def _make_room(self, sequences: int, keep: Collection[ContextNode]) -> None:
        for tip in list(self.tips):
            if len(self._free) >= sequences:
                return
            if tip not in keep:
                self._shorten(tip, keep)

    def _repack(self, more: int, keep: Collection[ContextNode]) -> None:
        """Make room for so many more cells; for as many again, that it need not be done often."""
        if len(self.children) + more > 3 * self._n_cells // 4:
            enough = min(self._n_cells // 2, self._n_cells - more)
            for tip in list(self.tips):
                if len(self.children) > enough and tip not in keep:
                    self._shorten(tip, keep)
        self.filled = len(self.children)
        self._there = self._memory.repack(2 * (self.filled + more))

    def _shorten(self, tip: ContextNode, keep: Collection[ContextNode] | None = None) -> None:
        """Give up a leaf's cell. Its parent keeps the sequence, if it is a leaf now.

        Args:
            tip: the leaf.
            keep: give up the cells before it as well, back to a branch or to one of these; None for no other.
        """
        sequence, node = self.tips.pop(tip), tip
        while True:
            parent = node.parent
            del self.children[node]
            self.evictions += keep is not None
            siblings = self.children.get(parent) if parent is not None else None
            if parent is None or siblings is None:  # all of it
                return self._give_back([sequence])
            del siblings[node]
            if siblings:
                return self._give_back([sequence])
            if keep is None or parent in keep:
                self._memory.remove(sequence, parent.depth)
                self.tips[parent] = sequence
                return None
            node = parent


def _bases(new: Collection[ContextNode], beside: Collection[ContextNode]) -> dict[ContextNode, None]:
    """The contexts with cells, or the empty one, that some which are to be run go on from."""
    return dict.fromkeys(
        node.parent for node in (*new, *beside) if node.parent is not None and node.parent not in new
    )


def _ancestors(nodes: Collection[ContextNode]) -> int:
    """How many contexts, but the empty one, the paths to some have."""
    seen: set[ContextNode] = set()
    for start in nodes:
        node: ContextNode | None = start
        while node is not None and node.depth and node not in seen:
            seen.add(node)
            node = node.parent
    return len(seen)


def _path(leaf: ContextNode, base: ContextNode | None = None) -> list[ContextNode]:
    """The contexts from `leaf` up to `base`, or to the empty one; the latter left out."""
    found = list[ContextNode]()
    node: ContextNode | None = leaf
    while node is not None and node is not base and node.depth:
        found.append(node)
        node = node.parent
    return found
