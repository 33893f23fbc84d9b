"""One candidate: tokens committed so far, a position inside the next token, and a log weight.

With `P` the probability that the model gives the committed tokens and `m` the mass of the tokens that
begin with the bytes read since (`partial`), the weight is `log P + log m`: the log-probability that the
model continues with *some* token beginning so. At a token boundary `m` is 1 and the weight `log P`.
Summed over candidates that differ in their committed tokens, weights give the probability of the text.

Reading a byte moves to a child node; where tokens end at the node, `extend_all` commits each of them
and starts again from the root, with one model call each. States are values: both make new states.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from jaxtyping import Bool, Float, Float64

from genlm.bytes.byte_lm.lm_state import StatefulTokenizedLM, next_row, of_its_own
from genlm.bytes.byte_lm.subclass import makeable
from genlm.bytes.byte_lm.symbols import check_symbol
from genlm.bytes.contexts.rows import checked_row
from genlm.bytes.contexts.tree import ContextNode
from genlm.bytes.errors import NotMaterializedError
from genlm.bytes.trie.arrays import ROOT
from genlm.bytes.trie.masses import NodeMasses
from genlm.bytes.trie.modes import EOS, EOT, Mode, TrieMode, as_mode
from genlm.bytes.trie.service import AsyncTokenByteTrie
from genlm.bytes.util import LazyByteProbs, escape
from genlm.bytes.util.rows import Row

if TYPE_CHECKING:
    from genlm.bytes.canonical import CanonicalContext

__all__ = ["EOS", "LazyTrieState", "TrieMode"]


class LazyTrieState:
    """A candidate of a beam.

    "Lazy": the model is asked for the distribution after `lm_state` only by `await materialize()`, and
    its masses are summed only at the nodes that are looked at.

    Args:
        lm_state: the model after the committed tokens: a `StatefulTokenizedLM`, or any object with an async
            `logp_next()` and, once a token ends, `<<` of its id.
        trie: the trie service of its vocabulary.
        node: the position inside the next token.
        weight: natural log weight.
        mass: log mass of every node, `[nodes]`, if known; None leaves the state unmaterialized.
        mode: how the bytes read from now on treat end-of-sequence tokens: a `TrieMode` or its value. None
            means `WITH_EOS`.
        terminated: whether the end of the sequence has been read.
        canonical: the committed tokens, as the rules of canonical tokenizations see them. Tokens that may
            not follow them then have probability zero; nothing is renormalized. None: all tokens count.
    """

    _last: tuple[StatefulTokenizedLM, int]
    """Of an extension: the model before its last token, and the token."""

    def __init__(
        self,
        lm_state: StatefulTokenizedLM | Any,
        trie: AsyncTokenByteTrie,
        node: int,
        weight: float,
        mass: Float[np.ndarray, " nodes"] | None = None,
        mode: Mode = TrieMode.WITH_EOS,
        terminated: bool = False,
        *,
        canonical: CanonicalContext | None = None,
    ) -> None:
        mode = as_mode(mode, TrieMode.WITH_EOS)
        self.lm_state = lm_state
        self.trie = trie
        self.node = node
        self.weight = weight
        self.mode = mode
        self.terminated = terminated
        self.canonical = canonical
        # How the present token has been read: it governs the tokens that end here (see masses.py).
        self._ended = mode
        self._masses = None if mass is None else NodeMasses.from_log_masses(trie.trie, mass, self._allowed())
        # log P of the committed tokens. For a state that a caller places inside a token it follows from
        # the weight once the masses are known.
        self._committed = weight if node == ROOT else None
        self._given = weight

    @classmethod
    def initial(
        cls,
        lm: Any,
        trie: AsyncTokenByteTrie,
        mode: Mode = TrieMode.WITH_EOS,
        *,
        canonical: CanonicalContext | None = None,
    ) -> Self:
        """A candidate that has read nothing, of weight log 1.

        Args:
            lm: a model after some tokens (see `lm_state` of the class), or a model to begin with.
            trie: the trie service of its vocabulary.
            mode: how end-of-sequence tokens are read.
            canonical: the model's context under the rules of canonical tokenizations, if only those count.
        """
        begun = hasattr(lm, "logp_next") and not hasattr(lm, "next_token_logprobs")
        lm_state = lm if begun else StatefulTokenizedLM.initial(lm)
        return cls.at_boundary(lm_state, trie, 0.0, mode, canonical)

    @classmethod
    def at_boundary(
        cls,
        lm_state: StatefulTokenizedLM | Any,
        trie: AsyncTokenByteTrie,
        weight: float,
        mode: Mode,
        canonical: CanonicalContext | None,
    ) -> Self:
        """A candidate between two tokens. Nothing has a default here, so nothing is left out by oversight.

        Args:
            lm_state: the model after the committed tokens.
            trie: the trie service of its vocabulary.
            weight: natural log of their probability.
            mode: how the bytes read from now on treat end-of-sequence tokens.
            canonical: those tokens under the rules of canonical tokenizations; None where all count.
        """
        state = makeable(cls, 4, "mode", "terminated")(lm_state, trie, ROOT, weight, mode=mode)
        state.canonical = canonical
        return state

    @cached_property
    def lm_state(self) -> StatefulTokenizedLM | Any:
        """The model after the committed tokens. Of an extension it is made here: most are never evaluated."""
        before, token_id = self._last
        return before << token_id

    @property
    def last_token(self) -> int | None:
        """The id of the last committed token, -1 of none; None of a model of a client's own."""
        if "lm_state" not in vars(self):
            return self._last[1]
        return self.lm_state.node.token if isinstance(self.lm_state, StatefulTokenizedLM) else None

    # -- masses ---------------------------------------------------------------------------------------

    async def materialize(self) -> Self:
        """Ask the model for the next token's distribution, once; return the state itself."""
        if self._masses is None:
            logps = await next_row(self.lm_state)
            if not isinstance(self.lm_state, StatefulTokenizedLM):  # which has looked at them itself
                logps = checked_row(self.lm_state, logps, values=False)
            self._masses = self._masses_of(logps)
        return self

    def materialize_if_known(self) -> bool:
        """`materialize`, if that needs no run of the model. Whether the state is materialized now."""
        if self._masses is None and isinstance(self.lm_state, StatefulTokenizedLM):
            logps = self.lm_state.logp_known()
            if logps is not None:
                self._masses = self._masses_of(logps)
        return self._masses is not None

    def standing_on(self, other: StatefulTokenizedLM) -> Self | None:
        """The same candidate to draft with, which takes what the model has said after another context, if
        that is known, for what it will say after its own."""
        logps = other.logp_known()
        if logps is None:
            return None
        state = self.at_boundary(self.lm_state, self.trie, self.weight, self.mode, self.canonical)
        state._masses = self._masses_after(other.node, logps)
        return state

    def _masses_of(self, logps: Row) -> NodeMasses:
        """The masses of a row; those of a row that is remembered are shared by all that stand there."""
        kept = not of_its_own(self.lm_state)  # a backend's rows are never overwritten
        if kept and self.lm_state.node.logps is logps:
            return self._masses_after(self.lm_state.node, logps)
        return NodeMasses.from_logprobs(self.trie.trie, logps, self._allowed(), kept=kept)

    def _masses_after(self, node: ContextNode, logps: Row) -> NodeMasses:
        trie = self.trie.trie
        shared = node.masses
        if shared is not None and shared[0] == self.canonical and shared[1].trie is trie:
            return shared[1]
        masses = NodeMasses.from_logprobs(trie, logps, self._allowed(), kept=True)
        if masses.reads(logps) and (self.canonical is None or node is self.lm_state.node):
            node.masses = self.canonical, masses
        return masses

    @property
    def batches(self) -> bool:
        """Whether contexts asked for together cost less. Of an `lm_state` that does not say, they do not."""
        return bool(getattr(self.lm_state, "batches", False))

    def may_read(self, symbols: Sequence[int | bytes]) -> bool:
        """Whether a candidate at a token's end may read some symbols, as far as rules can tell."""
        return self.canonical is None or self.canonical.reads(self.trie.trie, symbols)

    def _allowed(self) -> Bool[np.ndarray, " tokens"] | None:
        return None if self.canonical is None else self.canonical.allowed()

    @property
    def materialized(self) -> bool:
        """Whether the model has been asked."""
        return self._masses is not None

    @property
    def masses(self) -> NodeMasses:
        """The masses, summed on demand. `NotMaterializedError` before `materialize()`."""
        if self._masses is None:
            raise NotMaterializedError(
                "the state's `mass` is not yet materialized: the model has not been asked for the next "
                "token. Call `await state.materialize()` first."
            )
        return self._masses

    @cached_property
    def mass_here(self) -> float:
        """Mass of the tokens that begin with `partial`, as the weight counts it: 1 at a boundary."""
        return 1.0 if self.node == ROOT else self.masses.node(self.node, self._below, self._ended)

    @cached_property
    def mass(self) -> Float64[np.ndarray, " nodes"]:
        """Log mass of every node of the trie under the state's mode (of which see `with_mode`).

        Raises:
            ValueError: "not yet materialized" before `await materialize()`.
        """
        return self.masses.log_masses(self._below)

    # -- looking --------------------------------------------------------------------------------------

    @property
    def root(self) -> int:
        """The trie's root."""
        return self.trie.trie.root

    @property
    def children(self) -> Sequence[dict[Any, int]]:
        """The trie's `children`."""
        return self.trie.trie.children

    @property
    def partial(self) -> list[int]:
        """The bytes read since the last token ended; `[257]` after the end of the sequence."""
        return [EOS] if self.node == self.trie.trie.eos_node else list(self.partial_bytes)

    @property
    def partial_bytes(self) -> bytes:
        """`partial` as bytes; none after the end of the sequence."""
        trie = self.trie.trie
        return b"" if self.node >= trie.eos_node else trie.arrays.prefix(self.node, trie.decode)

    @property
    def symbols(self) -> list[int | bytes]:
        """What was read since the last token ended: bytes one by one, or an atomic unit."""
        partial = self.partial_bytes
        return [partial] if self.node == self.trie.trie.arrays.unit_node.get(partial) else list(partial)

    @property
    def read_in(self) -> TrieMode:
        """How the present token has been read: as text, `WITHOUT_EOS`, only if all bytes of it were."""
        return self.mode if self.node == ROOT else self._ended

    @property
    def _below(self) -> TrieMode:
        """The mode of tokens that go on past this point: no end begins with what was read as none."""
        ended = self._ended
        return ended if ended is TrieMode.WITH_EOS and self.node != ROOT else self.mode

    def actions(self) -> Mapping[Any, int]:
        """Each edge that can be followed here, and the node it leads to; nothing after the end."""
        return {} if self.terminated else self.trie.trie.children[self.node]

    def get_all_EOT(self) -> list[tuple[int, int]]:
        """`(leaf, token_id)` of each token that ends here, whatever its probability (cf. `extend_all`)."""
        trie = self.trie.trie
        return [] if self.terminated or self.node == ROOT else trie.tokens_ending_at(self.node)

    @property
    def committable(self) -> list[int]:
        """The ids of the tokens that end here and may be committed: those read as ends may not."""
        ends = frozenset() if self._ended is TrieMode.WITHOUT_EOS else self.trie.trie.eos_token_id_set
        return [token_id for _, token_id in self.get_all_EOT() if token_id not in ends]

    def get_EOT(self) -> int | None:
        """The leaf of the first token that ends here, or None. Older form of `get_all_EOT`."""
        return next((leaf for leaf, _ in self.get_all_EOT()), None)

    @cached_property
    def logp_next(self) -> LazyByteProbs:
        """Natural log-probabilities, given this candidate, of the next byte, of the token's end, of EOS.

        At a token boundary they are short of 1 by what counts for nothing: empty tokens and, where only
        canonical tokenizations count, tokens that may not come next.

        After the end of the sequence, nothing has any probability.
        """
        ps, units = self.next_probs()
        with np.errstate(divide="ignore"):
            logs = {u: math.log(p) if p > 0 else -math.inf for u, p in units.items()}
            return LazyByteProbs(np.log(ps), units=logs)

    def next_probs(self) -> tuple[Float64[np.ndarray, " 258"], dict[bytes, float]]:
        """`logp_next` as probabilities: of bytes, end of token and EOS; and of atomic units."""
        ps = np.zeros(258)
        masses, trie = self.masses, self.trie.trie
        here = 0.0 if self.terminated else self.mass_here
        if here <= 0.0:
            return ps, dict.fromkeys(trie.arrays.unit_node, 0.0)
        labels, sums = masses.children(self.node, self._below)
        ps[labels] = sums / here
        ps[EOT] = masses.ending(self.node, self._ended) / here
        units = trie.arrays.unit_node
        if self.node != ROOT:  # a unit is a token of its own: it can follow where one ends
            return ps, dict.fromkeys(units, 0.0)
        if self.mode is TrieMode.WITH_EOS:
            ps[EOS] = masses.eos() / here
        return ps, {unit: masses.node(node, self.mode, self.mode) / here for unit, node in units.items()}

    # -- moving ---------------------------------------------------------------------------------------

    def __lshift__(self, b: int | bytes) -> Self | None:
        """The state after one more symbol, or None if no token can go on so.

        Args:
            b: a byte 0..255, 257 for the end of the sequence, or an atomic unit.
        """
        symbol = check_symbol(b, self.trie)
        if self.terminated:
            return None
        if symbol == EOS:
            if self.node != ROOT or self.mode is not TrieMode.WITH_EOS:
                return None
            return self._moved(self.trie.trie.eos_node, self.masses.eos(), terminated=True)
        node = self.trie.trie.arrays.child(self.node, symbol)
        below = self._below
        return None if node < 0 else self._moved(node, self.masses.node(node, below, below))

    def extend_all(self) -> list[Self]:
        """One state per token that ends here and has a probability, in the order of `get_all_EOT`: the token
        committed, the next one not begun.

        The states are not materialized. Asked again, the same states are returned, so that a
        distribution that was looked at is not computed twice.
        """
        self._settle()
        return list(self._extensions)

    def _settle(self) -> None:
        """A weight that a client has set counts for what follows, as if the state had been made with it."""
        if self.weight != self._given:
            self._given = self.weight
            self._committed = self.weight if self.node == ROOT else None
            vars(self).pop("_extensions", None)

    def extend(self) -> Self | None:
        """The first of `extend_all`, or None. Older form."""
        return next(iter(self.extend_all()), None)

    @cached_property
    def _extensions(self) -> list[Self]:
        return [] if self.terminated or self.node == ROOT else self._commit(self.node)

    @property
    def committed(self) -> float:
        """log P of the committed tokens."""
        self._settle()
        if self._committed is None:
            mass = self.mass_here
            self._committed = self.weight - math.log(mass) if mass > 0.0 else -math.inf
        return self._committed

    def commit(self, node: int) -> list[Self]:
        """One state per token spelled by the path to `node`, likeliest first, with that token committed.

        Tokens of probability zero give none, which covers end-of-sequence tokens read as such, and tokens
        that may not come next in a canonical tokenization where only those count.
        """
        return sorted(self._commit(node), key=lambda state: -state.weight)

    def _commit(self, node: int) -> list[Self]:
        trie, masses, read_in = self.trie.trie, self.masses, self.read_in
        found = []
        for leaf, token_id in trie.tokens_ending_at(node):
            mass = masses.token(leaf - trie.eos_node - 1, read_in)
            if mass > 0.0:
                found.append(self._after(token_id, self.committed + math.log(mass)))
        return found

    def _after(self, token_id: int, weight: float) -> Self:
        canonical = self.canonical
        if canonical is not None:
            canonical = canonical.after(token_id)
            assert canonical is not None, "tokens that may not follow have probability zero"
        before = self.lm_state
        if type(self) is not LazyTrieState or type(before) is not StatefulTokenizedLM:
            return self.at_boundary(before << token_id, self.trie, weight, self.mode, canonical)
        state = self.at_boundary(before, self.trie, weight, self.mode, canonical)
        state._last = before, token_id
        del state.lm_state
        return state

    def _moved(self, node: int, mass: float, terminated: bool = False) -> Self | None:
        if mass <= 0.0:
            return None
        return self._derived(node, self.committed + math.log(mass), self.mode, self._below, terminated)

    def _derived(self, node: int, weight: float, mode: TrieMode, ended: TrieMode, terminated: bool) -> Self:
        """A state after the same committed tokens, with the same masses."""
        kind = makeable(type(self), 4, "mode", "terminated")
        state = kind(self.lm_state, self.trie, node, weight, mode=mode, terminated=terminated)
        state.canonical = self.canonical
        state._ended = ended
        state._masses = self._masses
        if node != ROOT:
            state._committed = self._committed
        return state

    def with_mode(self, mode: Mode) -> Self:
        """The same candidate, reading end-of-sequence tokens in the given mode from now on.

        What has been read stays as it was read. A byte read as `WITH_EOS` is no part of an end: of a token
        with such a byte no mode makes text later. One that has been spelled in full as text counts as text
        in both modes. The weight is that of the new mode: end-of-sequence tokens that were read as text so
        far, and go on past this point, count in it as it says.
        """
        mode = as_mode(mode, TrieMode.WITH_EOS)
        if mode is self.mode:
            return self
        self._settle()
        if self.node == ROOT or self._ended is TrieMode.WITH_EOS or self.terminated:
            weight = self.weight  # inside no end that was read as text
        else:
            committed = self.committed
            mass = self.masses.node(self.node, mode, self._ended)
            weight = committed + math.log(mass) if mass > 0.0 else -math.inf
        return self._derived(self.node, weight, mode, self._ended, self.terminated)

    async def cleanup(self) -> None:
        """Wait for what the state's trie still works on. The trie itself is shared and stays."""
        await self.trie.cleanup()

    def __repr__(self) -> str:
        partial = "EOS" if self.terminated else escape(self.partial_bytes)
        return f"{self.weight:.2f}: {self.lm_state!r}|{partial}"
