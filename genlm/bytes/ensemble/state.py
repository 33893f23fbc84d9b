"""Several byte-level models after the same bytes, as one byte-level model.

Each symbol is read by all members, at once, and what comes next is asked of all and made one by an operation
(`operations.py`). Members may be beams of different models, or of one after different contexts: those of one
model share its contexts and its forwards. Members that are one state, of one model after one context, are
asked once, and stay one.

A member that cannot have written what was read is dead: it holds everything for impossible. Whether that
ends the ensemble is for the operation to say.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np
from jaxtyping import Float64

from genlm.bytes.byte_lm.beam import ByteBeamState
from genlm.bytes.byte_lm.context_limits import context_is_full
from genlm.bytes.byte_lm.error_bounds import Slack
from genlm.bytes.byte_lm.lm_state import Context, StatefulByteLM
from genlm.bytes.byte_lm.speculation import side_by_side
from genlm.bytes.byte_lm.symbols import spelled
from genlm.bytes.ensemble.members import Member, Reader, distribution, trace
from genlm.bytes.ensemble.operations import Operation, logsumexp, with_floor
from genlm.bytes.errors import EmptyBeamError, ImpossibleByteError, UnsupportedModelError, bad_type, bad_value
from genlm.bytes.trie.modes import EOS, EOT, TrieMode
from genlm.bytes.util import LazyByteProbs
from genlm.bytes.util.gather import gather
from genlm.bytes.util.numbers import as_index

__all__ = ["EnsembleState"]

T = TypeVar("T")


class _Next(NamedTuple):
    """What comes next: the distribution, the log of what the potentials sum to, and each member's say."""

    distribution: LazyByteProbs
    log_normalizer: float
    rows: Float64[np.ndarray, "members symbols"]


class EnsembleState(StatefulByteLM):
    """Several byte-level models after the same bytes. A value: reading a byte makes a new one.

    Args:
        members: beams, or other byte-level models.
        operation: what makes their distributions one.
        log_shares: natural logs of what each member's string so far weighs; None at its beginning.
        floor: see `operations.py`; 0 for none.

    Attributes:
        members: as given; None where one cannot have written what was read.
    """

    def __init__(
        self,
        members: Sequence[Member],
        operation: Operation,
        log_shares: Float64[np.ndarray, " members"] | None = None,
        floor: float = 0.0,
    ) -> None:
        self.members = tuple(members)
        self.operation = operation
        self.floor = floor
        if log_shares is None:
            weights = operation.weights if operation.stringwise else None
            log_shares = np.zeros(len(members)) if weights is None else _log(weights)
        self.log_shares = log_shares
        self._next: _Next | None = None

    # -- looking --------------------------------------------------------------------------------------

    async def logp_next(self) -> LazyByteProbs:
        """Natural log-probabilities of the next byte and of the end of the sequence, `[258]`.

        Its `slack` is the weighted sum of the members' for the sum and the mixture. For the least, the
        greatest and powers from 1 it is twice the members' together, by what the potentials sum to, at most.
        For others nothing can be said, and it is None.

        Raises:
            EmptyBeamError: no symbol is possible.
        """
        return (await self._look()).distribution

    async def peek(self) -> LazyByteProbs:
        return (await self._look(ahead=False)).distribution

    async def log_potentials(self) -> LazyByteProbs:
        """The same before it is normalised: see `operations.py`."""
        found = await self._look()
        return LazyByteProbs(found.distribution.ps + found.log_normalizer)

    async def members_next(self) -> Float64[np.ndarray, "members symbols"]:
        """What each member says comes next: natural log-probabilities, `[members, 258]`."""
        return (await self._look()).rows

    async def members_logprobs(self, text: bytes | None) -> list[float]:
        """Natural log-probabilities of some bytes coming next, or of the end (None), by each member."""

        async def one(i: int) -> float:
            member: Any = self.members[i]
            total = 0.0
            for symbol in [EOS] if text is None else text:
                said = await distribution(member)
                total += -math.inf if said is None else said[symbol]
                if total == -math.inf:
                    break
                member = await (member.prune() << symbol)
            return total

        return await self._each(one)

    @property
    def seen(self) -> tuple[LazyByteProbs, Float64[np.ndarray, "members symbols"]] | None:
        """What `logp_next` and `members_next` say; None where nobody has asked yet."""
        return None if self._next is None else (self._next.distribution, self._next.rows)

    @property
    def shares(self) -> Float64[np.ndarray, " members"]:
        """The share of each member in a mixture, as it follows from the string so far; else its weight."""
        if self.operation.stringwise:
            return np.asarray(np.exp(self.log_shares - logsumexp(self.log_shares)), np.float64)
        weights = self.operation.weights
        return np.full(len(self.members), 1.0 / len(self.members)) if weights is None else weights

    async def _look(self, ahead: bool = True) -> _Next:
        if self._next is None:
            self._next = await self._ask(ahead)
        return self._next

    async def _ask(self, ahead: bool) -> _Next:
        distinct = {id(one): one for one in self.members if one is not None}
        models = [_model(one) for one in distinct.values()]

        async def said(i: int) -> LazyByteProbs | None:
            member = self.members[i]
            with side_by_side(models.count(_model(member))):  # those of one model are written side by side
                return await distribution(member, ahead)

        found = await self._each(said)
        if any(one is not None and one.units for one in found):
            raise UnsupportedModelError(
                "a member reads some strings of bytes as one symbol (`atomic_tokens`), which others need "
                "not: an ensemble has no distribution over such symbols. Make the member without them."
            )
        rows = np.array([np.full(258, -np.inf) if one is None else one.ps for one in found], np.float64)
        rows[:, EOT] = -np.inf
        if self.floor:
            rows = with_floor(rows, self.floor)
        if rows.max() == -np.inf:
            raise EmptyBeamError("no member of the ensemble can have written what was read, or it has ended.")
        potentials = self.operation.potentials(rows, self.log_shares)
        total = float(logsumexp(potentials))
        if not total > -math.inf:
            raise EmptyBeamError(
                "the members of the ensemble have no next byte in common. Give a `floor`, or another `op`."
            )
        slack = self._slack([one.slack if one is not None else None for one in found], math.exp(total))
        return _Next(LazyByteProbs(potentials - total, slack=slack), total, rows)

    async def _each(self, ask: Callable[[int], Coroutine[Any, Any, T]]) -> list[T]:
        """What is asked of each member, by its index; of those that are one state, once."""
        first: dict[int, int] = {}
        for i, member in enumerate(self.members):
            first.setdefault(id(member), i)
        found = dict(zip(first, await gather(map(ask, first.values())), strict=True))
        return [found[id(member)] for member in self.members]

    def _slack(self, members: Sequence[Any], total: float) -> Slack | None:
        slacks = [(0.0, 0.0) if slack is None else slack for slack in members]
        if self.operation.is_mean:
            shares = self.shares
            return Slack(*(float(shares @ np.array([s[i] for s in slacks])) for i in (0, 1)))
        if not self.operation.lipschitz:
            return None
        return Slack(*(min(1.0, 2.0 * sum(s[i] for s in slacks) / total) for i in (0, 1)))

    # -- reading --------------------------------------------------------------------------------------

    async def __lshift__(self, b: int) -> Self:
        """The ensemble after one more byte, 0..255, or after the end, 257.

        Raises:
            ValueError: something else.
        """
        symbol = as_index(b)
        if symbol is None:
            raise bad_type("b", b, "must be a byte, or 257 for the end")
        if not (0 <= symbol < 256 or symbol == EOS):
            raise bad_value("b", b, "must be a byte 0..255, or 257 for the end of the sequence")
        found = await self._each(lambda i: self._read(i, symbol))
        return self._with([member for member, _ in found], [gain for _, gain in found])

    async def advance(self, symbol: int) -> Self:
        """`<<`, as beams call it."""
        return await (self << symbol)

    async def _read(self, i: int, symbol: int) -> tuple[Member, float]:
        """A member after a symbol, and its natural log-probability if that counts."""
        member = self.members[i]
        if member is None:
            return None, -math.inf
        after: Any = await (member << symbol)
        if getattr(after, "is_empty", False):
            return None, -math.inf
        if not self.operation.stringwise:
            return after, 0.0
        if hasattr(after, "logZ"):
            return after, float(after.logZ - member.logZ)  # type: ignore[attr-defined]
        return after, float((await self._look()).rows[i, symbol])

    def prune(self) -> Self:
        """The ensemble with each member pruned."""
        pruned = {id(member): member and member.prune() for member in self.members}
        return self._with([pruned[id(member)] for member in self.members])

    async def prefill(self, bs: Context, *, method: str = "beam", progress: Any = False) -> Self:
        """Read known bytes, each member pruned before each; see `ByteBeamState.prefill`.

        Args:
            bs: the bytes.
            method: how beams read. A mixture, in which it counts how well each member predicts the bytes,
                reads with `"beam"` whatever is given.
            progress: see there.

        Raises:
            ImpossibleByteError: no member can read one of them.
        """
        if self.operation.stringwise:
            return (await self.trace(spelled(list(bs)), TrieMode.WITHOUT_EOS))[-1]

        async def one(i: int) -> Member | ImpossibleByteError:
            member = self.members[i]
            try:
                if isinstance(member, ByteBeamState):
                    return await member.prefill(bs, method=method, progress=progress)
                return member and await member.prefill(bs)
            except ImpossibleByteError as error:
                return error

        results = await self._each(one)
        after = [None if isinstance(result, ImpossibleByteError) else result for result in results]
        if not any(member is not None for member in after):
            raise next(result for result in results if isinstance(result, ImpossibleByteError))
        return self._with(after)

    async def trace(
        self, text: bytes, mode: TrieMode = TrieMode.WITH_EOS, read: Reader | None = None
    ) -> list[Self]:
        """The ensemble before each byte of a text, pruned, and after the last.

        Each member reads the text as `prefill` does, in a few forwards.

        Args:
            text: the text.
            mode: how end-of-sequence strings are read.
            read: how beams read it; None for as a whole.
        """
        traces = await self._each(lambda i: trace(self.members[i], text, mode, read))
        found = []
        for at in range(len(text) + 1):
            here = [trace[at] if at < len(trace) else (None, -math.inf) for trace in traces]
            found.append(self._with([member for member, _ in here], [gain for _, gain in here]))
        return found

    def _with(self, members: Sequence[Member], gains: Sequence[float] | None = None) -> Self:
        shares = self.log_shares
        if gains is not None and self.operation.stringwise:
            shares = shares + np.asarray(gains)
        return type(self)(members, self.operation, shares, self.floor)

    # -- as a beam ------------------------------------------------------------------------------------

    @property
    def is_empty(self) -> bool:
        """Whether no member can have written what was read."""
        return all(member is None for member in self.members)

    def __len__(self) -> int:
        """How many members can have written what was read."""
        return sum(member is not None for member in self.members)

    @property
    def states(self) -> list[Any]:
        """The hypotheses of the members' beams, one member's after another's."""
        beams = [member.states for member in self.members if isinstance(member, ByteBeamState)]
        return [state for states in beams for state in states]

    @property
    def context_is_full(self) -> bool:
        """Whether the next token might not fit into the context of some member's model."""
        return any(context_is_full(member) for member in self.members if member is not None)

    @property
    def params(self) -> Any:
        """The settings of the first member's beam."""
        return self._beams[0].params

    @property
    def trie(self) -> Any:
        """The trie of the first member's vocabulary."""
        return self._beams[0].trie

    @property
    def _beams(self) -> list[ByteBeamState]:
        return [member for member in self.members if isinstance(member, ByteBeamState)]

    async def cleanup(self) -> None:
        """Release what the members hold."""
        await gather(member.cleanup() for member in self.members if member is not None)

    def _repr_html_(self) -> str:
        """Each member's beam, and once somebody has looked what it says comes next, in a notebook."""
        from genlm.bytes.viz.html import beam_html  # brings jinja2, which importing us should not
        from genlm.bytes.viz.together import view_ensemble

        return beam_html(view_ensemble(self))

    def __repr__(self) -> str:
        """Each member's share and, once somebody has looked, what it says comes next."""
        shares = [f"{share:.3f}" for share in self.shares]
        head = f"EnsembleState of {len(self.members)}, {type(self.operation).__name__}"
        if self._next is None:
            return f"<{head}: {', '.join(shares)}>"
        said = [
            *zip(shares, map(LazyByteProbs, self._next.rows), strict=True),
            ("all", self._next.distribution),
        ]
        return "\n".join([f"{head}:", *(f"  {share}: {row!r}" for share, row in said)])


def _model(member: Member) -> int:
    """What tells whether two members are of one model."""
    states = getattr(member, "states", None)
    return id(states[0].lm_state.model) if states else id(member)


def _log(weights: Float64[np.ndarray, " members"]) -> Float64[np.ndarray, " members"]:
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(weights), np.float64)
