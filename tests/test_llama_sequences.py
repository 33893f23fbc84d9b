"""The tree of contexts over sequences, on cells that behave as those of llama.cpp. It need not be installed.

A cell has a position, a token and the sequences that it belongs to; a token sees the cells of its own
sequence that are not after it.

    cells      0:a {0,1}   1:b {0,1}   2:c {0}   2:d {1}
    contexts   a - ab - abc (sequence 0)
                     \\- abd (sequence 1)
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genlm.bytes.backends.hf_tree.schedule import split_batch
from genlm.bytes.backends.llama_cpp.sequences import Run, SequenceTree
from genlm.bytes.contexts.tree import ContextNode, ContextTree


class Cells:
    """Cells with sequences. What llama.cpp insists on is asserted."""

    def __init__(self, most: int, sequences: int, limit: int) -> None:
        self.cells: list[tuple[int, int, set[int]]] = []
        self.most, self.sequences, self.limit = most, sequences, limit

    def copy(self, source: int, target: int, length: int) -> None:
        assert not self.of(target), "a sequence that is copied to is empty"
        for position, _, of in self.cells:
            if source in of and position < length:
                of.add(target)

    def remove(self, sequence: int, start: int) -> None:
        for position, _, of in self.cells:
            if position >= start:
                of.discard(sequence)  # the cell stays filled

    def clear(self) -> None:
        self.cells = []

    def repack(self, least: int) -> int:
        self.cells = [cell for cell in self.cells if cell[2]]
        self.most = min(self.limit, max(self.most, least))
        return self.most

    def of(self, sequence: int) -> list[int]:
        mine = [(position, token) for position, token, of in self.cells if sequence in of]
        assert [position for position, _ in mine] == list(range(len(mine))), "in order, without gaps"
        return [token for _, token in mine]

    def run(self, runs: Sequence[Run]) -> None:
        for run in runs:
            assert run.sequences and len(set(run.sequences)) == len(run.sequences)
            before = [self.of(sequence) for sequence in run.sequences]
            assert all(0 <= sequence < self.sequences for sequence in run.sequences)
            assert all(tokens == run.node.tokens()[:-1] for tokens in before), "it sees its own context"
            self.cells.append((run.node.depth - 1, run.node.token, set(run.sequences)))
            assert len(self.cells) <= self.most, "cells are bounded"


class World:
    """A tree of sequences over cells, driven as the backend does."""

    def __init__(self, cells: int = 24, sequences: int = 8, begun_with: int | None = None) -> None:
        self.cells = Cells(begun_with or cells, sequences, cells)
        self.most_contexts = sequences // 2
        self.tree = ContextTree()
        self.sequences = SequenceTree(self.cells, sequences, cells, begun_with)

    def ask(self, contexts: Sequence[Sequence[int]], fails: bool = False) -> int:
        """Run some contexts; how many tokens that took."""
        nodes = sorted(dict.fromkeys(self.tree.find(ids) for ids in contexts), key=lambda node: node.depth)
        count = 0
        for part in split_batch(nodes, self.most_contexts, self.cells.limit - self.most_contexts):
            request = self.sequences.begin(part)
            assert {run.node for run in request.runs if run.wanted} == set(part)
            half = len(request.runs) // 2 if fails else len(request.runs)
            self.cells.run(request.runs[:half])
            count += half
            if fails:
                self.cells.clear()
                self.sequences.clear()
            else:
                self.sequences.commit(request)
            self.validate()
        return count

    def validate(self) -> None:
        tree, cells = self.sequences, self.cells
        for tip, sequence in tree.tips.items():
            assert not tree.children[tip] and cells.of(sequence) == tip.tokens()
        for node in tree.children:
            assert node in tree.tips or tree.children[node]
            assert node.parent is not None
            assert node.depth == 1 or node in tree.children[node.parent]
        assert len(cells.cells) == tree.filled >= len(tree.children)
        used = {sequence for _, _, of in cells.cells for sequence in of}
        assert used == set(tree.tips.values())
        assert sorted([*used, *tree._free]) == list(range(cells.sequences))


contexts = st.lists(st.integers(0, 2), min_size=1, max_size=9)


@given(
    st.lists(st.tuples(st.lists(contexts, min_size=1, max_size=12), st.booleans()), max_size=12),
    st.integers(1, 24),
)
def test_every_token_sees_its_own_context_and_no_other(
    requests: list[tuple[list[list[int]], bool]], begun_with: int
) -> None:
    world = World(begun_with=begun_with)
    for wanted, fails in requests:
        world.ask(wanted, fails)


def test_a_branch_shares_and_a_leaf_goes_on() -> None:
    world = World()
    assert world.ask([[0, 1, 2]]) == 3 and len(world.sequences.tips) == 1
    assert world.ask([[0, 1, 2, 0]]) == 1 and len(world.sequences.tips) == 1, "a leaf keeps its sequence"
    assert world.ask([[0, 1, 0], [0, 1, 1]]) == 2 and len(world.sequences.tips) == 3
    assert world.sequences.filled == 6


def test_the_least_recently_run_is_given_up() -> None:
    world = World(cells=100, sequences=6)
    for token in range(5):
        world.ask([[token, 0]])
    world.ask([[0, 0, 1]])
    world.ask([[5, 0], [6, 0]])
    assert world.ask([[0, 0, 1, 1]]) == 1, "what was run lately is there"
    assert world.ask([[1, 0, 1]]) == 3, "what was not is run again"


def test_a_full_cache_keeps_the_paths_that_are_gone_on_from() -> None:
    world = World(cells=24, sequences=16)
    world.ask([[0] * 6, [1] * 6])
    for token in range(2, 13):
        world.ask([[token]])
    given_up = world.sequences.evictions
    assert world.ask([[0] * 6 + [1], [1] * 6 + [1], [0] * 6 + [2]]) == 3, "and runs nothing again"
    assert world.sequences.evictions > given_up and world.sequences.filled <= 24


def test_cells_double_and_what_is_there_stays() -> None:
    world = World(cells=64, sequences=16, begun_with=8)
    world.ask([[0] * 6, [1]])
    assert world.cells.most == 8 and world.ask([[0] * 6 + [1], [0] * 6 + [2], [1, 1]]) == 3
    assert world.cells.most == 26
    world.ask([[2] * 20])
    assert world.cells.most == 62, "one request that needs more has it at once"
    assert world.ask([[1, 1, 0], [0] * 6 + [2, 2]]) == 2 and not world.sequences.evictions
    world.ask([[2, 0] * 20])
    assert world.sequences.evictions and len(world.sequences.children) < 64


def test_a_context_that_has_a_cell_is_run_again_for_its_row() -> None:
    world = World()
    world.ask([[0, 1, 2]])
    assert world.ask([[0, 1]]) == 1, "beside what goes on from it"
    assert world.ask([[0, 1, 2], [0, 1]]) == 2, "a leaf, in its place"


def test_the_longest_context_fits_beside_nothing() -> None:
    world = World(cells=12, sequences=4)
    world.ask([[1, 1], [1, 2]])
    assert world.ask([[0] * 12]) == 12
    assert world.ask([[0] * 11]) == 1 and world.ask([[0] * 12]) == 1
    assert world.ask([[0] * 12]) == 1


@pytest.mark.parametrize("many", [1, 40])
def test_more_contexts_than_sequences(many: int) -> None:
    world = World(cells=64, sequences=4)
    assert world.ask([[0, i] for i in range(many)]) >= many
    node: ContextNode = world.tree.find([0, many - 1])
    assert node in world.sequences.tips
