"""Several models as one, by closed form: the members' own distributions are sums over all segmentations."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_runner import Run
from hypothesis import given
from hypothesis import strategies as st
from test_drafts import Batching
from toy import BatchingToy, FixedLM, ToyLM

from genlm.bytes import AsyncByteLM, BeamParams, ByteLM
from genlm.bytes.byte_lm import ByteBeamState
from genlm.bytes.contexts.cached_lm import CachedLM
from genlm.bytes.ensemble import operation
from genlm.bytes.ensemble.members import trace
from genlm.bytes.errors import GenlmBytesError, ImpossibleByteError, InvalidTypeError, InvalidValueError
from genlm.bytes.plain import PlainByteLM
from genlm.bytes.score import read_shards
from genlm.bytes.trie import TrieMode
from genlm.bytes.util.symbols import EOS

EXACT = BeamParams(exact=True)
OPERATIONS: list[Any] = ["prod", "sum", "mixture", "min", "max", "harmonic", 0.5, 2, 0, -3]
FIRST = [b"a", b"b", b"c", b"ab", b"<e>"]
SECOND = [b"a", b"b", b"c", b"bc", b"aa", b"<e>"]
SYMBOLS = [*b"abc", EOS]


def lm(words: Sequence[bytes] = FIRST, seed: int = 0, **options: Any) -> ByteLM:
    return ByteLM(ToyLM(words, seed=seed, eos=len(words) - 1, **options), EXACT)


def plain(member: ByteLM) -> PlainByteLM:
    toy = member.llm
    spellings = dict(enumerate(toy.words))
    return PlainByteLM(
        lambda tokens: toy.probs(tokens).tolist(), spellings, [len(toy.words) - 1], toy_start(toy)
    )


def toy_start(toy: ToyLM) -> list[int]:
    return [toy.tokenizer.eos_token_id]  # what a text begins after, where there is no BOS


def conditionals(member: ByteLM, text: bytes) -> np.ndarray:
    """The probability of each of `SYMBOLS` after a text, by all segmentations; 0 where it is impossible."""
    twin = plain(member)
    beam = twin.initial()
    for byte in text:
        beam = twin.read(beam, byte)
    found = twin.next(beam) if twin.total(beam) else {}
    return np.array([found.get(symbol, 0.0) for symbol in SYMBOLS])


async def trace_of(member: ByteLM, text: bytes) -> list[tuple[Any, float]]:
    return await trace(await member.asynchronous.beam(), text, TrieMode.WITH_EOS)


def said(ensemble: ByteLM, text: bytes) -> np.ndarray:
    found = ensemble.next(text, method="beam")
    return np.exp([found[symbol] for symbol in SYMBOLS])


texts = st.lists(st.sampled_from(list(b"abc")), max_size=4).map(bytes)
seeds = st.integers(0, 10**6)


@pytest.mark.parametrize("op", OPERATIONS)
def test_a_model_with_itself_is_itself(op: Any) -> None:
    member = lm()
    together = ByteLM.ensemble([member, member], op)
    assert together.next("<e>ab").ps == pytest.approx(member.next("<e>ab").ps, abs=1e-9)
    for text in (b"", b"a", b"ab", b"cabb"):
        assert said(together, text) == pytest.approx(conditionals(member, text), abs=1e-9)
    assert together.score("abca").logprobs == pytest.approx(member.score("abca").logprobs, abs=1e-9)


def mean(rows: np.ndarray, w: np.ndarray, op: Any) -> np.ndarray:
    with np.errstate(divide="ignore"):
        if op in ("min", "max"):
            return rows.min(0) if op == "min" else rows.max(0)
        if op in ("prod", 0):
            return np.prod(rows ** w[:, None], axis=0)
        p = {"sum": 1.0, "harmonic": -1.0}.get(op, op)
        return (w @ rows**p) ** (1 / p)


@pytest.mark.parametrize("op", [op for op in OPERATIONS if op != "mixture"])
@given(seed=seeds, text=texts, share=st.floats(0.1, 0.9))
def test_by_closed_form(op: Any, seed: int, text: bytes, share: float) -> None:
    members = [lm(FIRST, seed), lm(SECOND, seed + 1)]
    weights = None if op in ("min", "max") else [share, 1 - share]
    found = said(ByteLM.ensemble(members, op, weights), text)
    wanted = mean(np.array([conditionals(m, text) for m in members]), np.array([share, 1 - share]), op)
    assert found == pytest.approx(wanted / wanted.sum(), abs=1e-9)


@given(seed=seeds, text=texts.filter(bool), share=st.floats(0.01, 0.99))
def test_a_mixture_is_one_of_strings(seed: int, text: bytes, share: float) -> None:
    members = [lm(FIRST, seed), lm(SECOND, seed + 1)]
    together = ByteLM.ensemble(members, "mixture", [share, 1 - share])
    ps = [plain(m).prefix(text) for m in members]
    wanted = math.log(share * ps[0] + (1 - share) * ps[1])
    assert together.score(text).logprob == pytest.approx(wanted, abs=1e-9)
    shares = np.array([share * ps[0], (1 - share) * ps[1]])
    assert together.beam(text).shares == pytest.approx(shares / shares.sum(), abs=1e-9)
    half = len(text) // 2
    again = together.next(text[:half], method="beam").beam
    for byte in text[half:]:
        again = together.run(again.prune() << byte)
    assert again.shares == pytest.approx(shares / shares.sum(), abs=1e-9)


def test_three_tokenizations_of_one_distribution_give_it_back() -> None:
    rng = np.random.default_rng(5)
    chars = {prev: rng.dirichlet([1.0, 1.0, 1.0]) for prev in ("", "a", "b", "c")}

    def of_length(words: list[bytes], shares: dict[int, float]) -> ByteLM:
        """How long the next token is is drawn first, then its letters: the letters are the same for all."""

        def rule(context: Sequence[int]) -> list[float]:
            before = words[context[-1]].decode() if context and context[-1] < len(words) - 1 else ""
            found = []
            for word in words[:-1]:
                p, prev = shares[len(word)], before[-1:]
                for letter in word.decode():
                    p, prev = p * chars[prev]["abc".index(letter)], letter
                found.append(p)
            return [*found, 0.0]

        return ByteLM(FixedLM(words, eos=len(words) - 1, rule=rule), EXACT)

    letters = [b"a", b"b", b"c"]
    pairs = [x + y for x in letters for y in letters]
    triples = [x + y for x in pairs for y in letters]
    members = [
        of_length([*letters, b"<e>"], {1: 1.0}),
        of_length([*letters, *pairs, b"<e>"], {1: 0.3, 2: 0.7}),
        of_length([*letters, *triples, b"<e>"], {1: 0.5, 3: 0.5}),
    ]
    for op in OPERATIONS:
        together = ByteLM.ensemble(members, op)
        for text in (b"", b"a", b"cab", b"abcab"):
            assert said(together, text)[:3] == pytest.approx(chars[text[-1:].decode()], abs=1e-9)


@given(seed=seeds, text=texts, alpha=st.floats(-2, 2))
def test_tuned_by_nothing_is_the_base(seed: int, text: bytes, alpha: float) -> None:
    base, other = lm(FIRST, seed), lm(SECOND, seed + 1)
    assert said(ByteLM.proxy_tuned(base, other, other, alpha), text) == pytest.approx(
        conditionals(base, text), abs=1e-9
    )
    expert = lm(SECOND, seed + 2)
    rows = [conditionals(m, text) for m in (base, expert, other)]
    wanted = rows[0] * (rows[1] / rows[2]) ** alpha
    found = said(ByteLM.proxy_tuned(base, expert, other, alpha), text)
    assert found == pytest.approx(wanted / wanted.sum(), abs=1e-9)


@given(seed=seeds, text=texts, plausibility=st.floats(0.01, 1.0))
def test_contrastive(seed: int, text: bytes, plausibility: float) -> None:
    expert, amateur = lm(FIRST, seed), lm(SECOND, seed + 1)
    p, q = conditionals(expert, text), conditionals(amateur, text)
    wanted = np.where(p >= plausibility * p.max(), p / q, 0.0)
    found = said(ByteLM.contrastive(expert, amateur, plausibility), text)
    assert found == pytest.approx(wanted / wanted.sum(), abs=1e-9)


@given(seed=seeds, text=texts, budget=st.floats(0, 0.5))
def test_anchored_keeps_to_its_budget(seed: int, text: bytes, budget: float) -> None:
    safe, risky = lm(FIRST, seed), lm(SECOND, seed + 1)
    p, q = conditionals(safe, text), conditionals(risky, text)

    def kl(x: np.ndarray, y: np.ndarray) -> float:
        return float((x * np.log(x / y)).sum())

    found = said(ByteLM.anchored(safe, risky, budget), text)
    assert kl(found, p) <= budget + 1e-9
    if kl(q, p) <= budget:
        assert found == pytest.approx(q, abs=1e-9)
    else:  # as near as the budget lets it: it is used up, and on the way from the one to the other
        assert kl(found, p) == pytest.approx(budget, abs=1e-6)
        rng = np.random.default_rng(seed)
        for other in (found * (1 - t) + t * rng.dirichlet(np.ones(4)) for t in (0.01, 0.1, 1.0)):
            assert kl(other, p) > budget or kl(other, q) >= kl(found, q) - 1e-9
    assert said(ByteLM.anchored(safe, risky, 1e9), text) == pytest.approx(q, abs=1e-9)


@pytest.mark.parametrize("op", OPERATIONS)
def test_the_order_of_members_does_not_matter(op: Any) -> None:
    members = [lm(FIRST, 1), lm(SECOND, 2), lm(FIRST, 3)]
    weights = None if op in ("min", "max") else [0.5, 0.3, 0.2]
    wanted = said(ByteLM.ensemble(members, op, weights), b"ab")
    for order in itertools.permutations(range(3)):
        other = ByteLM.ensemble([members[i] for i in order], op, weights and [weights[i] for i in order])
        assert said(other, b"ab") == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("op", ["sum", "min", "max", 1.5, 4, math.inf])
@given(seed=seeds, far=st.floats(0, 1))
def test_how_far_off_members_put_what_they_make(op: Any, seed: int, far: float) -> None:
    """In total variation by no more than twice what they are off together, by what the potentials sum to."""
    rng = np.random.default_rng(seed)
    true, other = (rng.dirichlet(np.full(5, 0.5), 3) + 1e-12 for _ in range(2))
    said = (1 - far) * true + far * other
    rule = operation(op, 3)
    made = [np.exp(rule.potentials(np.log(rows), np.zeros(3))) for rows in (true, said)]
    distance = abs(made[0] / made[0].sum() - made[1] / made[1].sum()).sum() / 2
    off = abs(true - said).sum() / 2
    assert rule.lipschitz and distance <= 2 * off / made[1].sum() + 1e-9


class TestImpossible:
    """`c` is no word of the one member, `a` none of the other."""

    def members(self) -> list[ByteLM]:
        return [lm([b"a", b"b", b"<e>"], 1), lm([b"b", b"c", b"<e>"], 2)]

    @pytest.mark.parametrize("op", ["prod", "min", "harmonic", -2, 0])
    def test_to_one_is_to_all(self, op: Any) -> None:
        together = ByteLM.ensemble(self.members(), op)
        assert (said(together, b"b") > 0).tolist() == [False, True, False, True]
        with pytest.raises(ImpossibleByteError) as caught:
            together.score("bab")
        assert caught.value.offset == 1 and "ensemble" in str(caught.value)
        scores = together.score("bab", on_impossible="inf").logprobs
        assert scores[1] == -np.inf and np.isnan(scores[2])

    @pytest.mark.parametrize("op", ["sum", "mixture", "max", 3])
    def test_to_one_is_possible(self, op: Any) -> None:
        first, second = self.members()
        together = ByteLM.ensemble([first, second], op)
        assert (said(together, b"b") > 0).all()
        assert said(together, b"a") == pytest.approx(conditionals(first, b"a"), abs=1e-9)  # the other is out
        assert len(together.beam(b"a")) == 1

    def test_a_floor(self) -> None:
        members = self.members()
        rows = np.array([conditionals(m, b"b") for m in members]) * 0.9 + 0.1 / 4
        wanted = np.sqrt(rows.prod(0))
        together = ByteLM.ensemble(members, floor=0.1)
        assert said(together, b"b") == pytest.approx(wanted / wanted.sum(), abs=1e-9)
        assert (said(together, b"a") > 0).any()  # whom the text is impossible to has no opinion

    def test_nothing_in_common(self) -> None:
        members = [lm([b"a", b"<e>"], 1), lm([b"b", b"<e>"], 2)]
        together = ByteLM.ensemble(members)
        assert said(together, b"")[3] == pytest.approx(1.0)
        assert together.complete("").finish_reason == "eos"


class TestAsked:
    """All that a model can be asked."""

    def test_contexts_of_their_own(self) -> None:
        member = lm()
        together = ByteLM.ensemble([member, member], "sum", contexts=["ab", b"c"])
        wanted = (conditionals(member, b"abca") + conditionals(member, b"cca")) / 2
        assert said(together, b"ca") == pytest.approx(wanted, abs=1e-9)
        mixed = ByteLM.ensemble([member, member], "mixture", contexts=["ab", (0, "b")])
        twin = plain(member)
        share = twin.prefix(b"abca") / twin.prefix(b"ab")
        assert mixed.beam("ca").log_shares[0] == pytest.approx(math.log(0.5 * share), abs=1e-9)
        with pytest.raises(InvalidTypeError, match="context of its own"):
            together.next((0, "a"))

    def test_completing(self) -> None:
        members = [lm(FIRST, 1), lm(SECOND, 2)]
        together = ByteLM.ensemble(members)
        text, bytes_ = b"a", []
        for _ in range(5):
            best = SYMBOLS[int(said(together, text).argmax())]
            if best == EOS:
                break
            bytes_.append(best)
            text += bytes([best])
        done = together.complete("a", max_bytes=5)
        assert done.bytes == bytes(bytes_)
        score = together.score(done.bytes, "a", end=done.finish_reason == "eos")
        assert done.logprob == pytest.approx(score.logprob)
        one, two = (together.complete(["a", "b"], n=2, seed=7, max_bytes=6) for _ in range(2))
        assert one == two and len(one) == 2
        assert "".join(map(str, together.stream("a", max_bytes=5))) == done.text
        only = together.complete("a", max_bytes=4, mask=lambda new: b"b")
        assert only.bytes == b"bbbb"
        assert sum(np.exp(list(together.next("a").chars(None).values()))) == pytest.approx(1.0, abs=1e-6)
        assert together.complete("a", stop="b", mask=lambda new: b"b").finish_reason == "stop"

    def test_best_of(self) -> None:
        together = ByteLM.ensemble([lm(FIRST, 1), lm(SECOND, 2)], "sum")
        every = together.complete("a", n=4, seed=2, max_bytes=3)
        best = together.complete("a", n=2, best_of=4, seed=2, max_bytes=3)
        ordered = sorted(every, key=lambda done: -done.logprob / max(1, len(done.bytes)))
        assert best == ordered[:2]

    def test_filling_in_the_middle(self) -> None:
        """Each member reads prefix and suffix by its own tokens for it, after its own context."""
        words = [*FIRST, b"<p>", b"<s>", b"<m>"]
        one, other = (ByteLM(ToyLM(words, seed, eos=4), EXACT) for seed in (1, 2))
        asked = {"suffix": "c", "fim": (5, 6, 7), "unit": "byte", "max_bytes": 3}
        twice = ByteLM.ensemble([one, one], "sum")
        assert twice.complete("ab", **asked).bytes == one.complete("ab", **asked).bytes
        both = ByteLM.ensemble([one, other], "sum", contexts=["a", ""])
        drawn = both.complete("b", **asked, seed=2, echo=True, logprobs=True)
        assert drawn.bytes.startswith(b"b") and len(drawn.logprobs) == len(drawn.bytes) > 1
        wanted = [m.next((5, 6, "c", 7, text), method="beam") for m, text in ((one, "ab"), (other, "b"))]
        p = np.mean([math.exp(row[drawn.bytes[1]]) for row in wanted])
        assert drawn.logprobs[1] == pytest.approx(math.log(p))
        chats = ByteLM.ensemble([one, other], contexts=[(5, "a"), "a"])
        with pytest.raises(InvalidTypeError, match=r"`contexts\[0\]`.*`suffix`"):
            chats.complete("b", **asked)

    def test_scoring(self) -> None:
        together = ByteLM.ensemble([lm(FIRST, 1), lm(SECOND, 2)])
        text = b"abcab"
        rows = together.byte_logprobs(text)
        for at in range(len(text)):
            assert np.exp(rows[at, [*b"abc", 256]]) == pytest.approx(said(together, text[:at]), abs=1e-6)
        score = together.score(text, end=True)
        wanted = [math.log(said(together, text[:at])["abc".index(chr(text[at]))]) for at in range(len(text))]
        assert score.logprobs == pytest.approx(wanted, abs=1e-9)
        assert score.end == pytest.approx(math.log(said(together, text)[3]), abs=1e-9)
        (word,) = together.word_surprisal("abc", words=["b"], sep="", boundary="none", base=math.e)
        assert word.surprisal == pytest.approx(-wanted[1]) and math.isnan(word.naive)
        (word,) = together.word_surprisal("abc", base=math.e)
        assert word.surprisal == pytest.approx(-sum(wanted[:3]) - math.log(said(together, b"abc")[3]))

    def test_written_to_a_folder(self, tmp_path: Path) -> None:
        """The same call goes on; of other members, weights or contexts it is another call."""
        members = [lm(FIRST, 1), lm(SECOND, 2)]
        texts, out = ["abc", "ca"], tmp_path / "out"

        def ensemble(**options: Any) -> ByteLM:
            return ByteLM.ensemble(members, **{"op": "sum", "weights": [3, 1], **options})

        assert ensemble().byte_logprobs(texts, out=out) == out
        wanted = ensemble().byte_logprobs(texts)
        found = [array for _, array in read_shards(out)]
        assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))
        assert ensemble().byte_logprobs(texts, out=out) == out
        for other in ({"weights": [1, 1]}, {"op": 2}, {"contexts": ["a", ""]}, {"floor": 0.1}):
            with pytest.raises(InvalidValueError, match="`out`"):
                ensemble(**other).byte_logprobs(texts, out=out)

    def test_whoever_made_it(self) -> None:
        together = ByteLM.ensemble([lm(FIRST, 1), lm(SECOND, 2)], weights=[2, 1])
        assert "Product" in repr(together.asynchronous) and "2.000, 1.000" in repr(together.beam("a"))
        shown = repr(together.next("a").beam).splitlines()
        assert len(shown) == 4 and all("LazyByteProbs logp: " in line for line in shown[1:])
        assert together.asynchronous.llm == tuple(m.llm for m in together.asynchronous.members)
        together.forget()
        together.close()
        with pytest.raises(GenlmBytesError, match="closed"):
            together.next("a")


class TestRefused:
    @pytest.mark.parametrize(
        ("make", "said"),
        [
            (lambda m: ByteLM.ensemble([m, m], "product"), "`op` is 'product'.*'prod'"),
            (lambda m: ByteLM.ensemble([m, m], math.nan), "`op` is nan"),
            (lambda m: ByteLM.ensemble([m, m], True), "`op` is True"),
            (lambda m: ByteLM.ensemble([m, m], weights=[1]), "`weights` is .*2, one for each"),
            (lambda m: ByteLM.ensemble([m, m], "sum", [1, -1]), "negative"),
            (lambda m: ByteLM.ensemble([m, m], "min", [1, 1]), "has none"),
            (lambda m: ByteLM.ensemble([m, m], "prod", [-1, 0]), "above 0"),
            (lambda m: ByteLM.ensemble([m, m], "sum", [0, 0]), "not all 0"),
            (lambda m: ByteLM.ensemble([m, m], "sum", [1, math.inf]), "finite"),
            (lambda m: ByteLM.ensemble([]), "at least one"),
            (lambda m: ByteLM.ensemble([m, m], contexts=["a"]), "`contexts` is .*2, one for each"),
            (lambda m: ByteLM.ensemble([m], floor=1), "`floor` is 1"),
            (lambda m: ByteLM.ensemble([m], "mixture", floor=0.1), "mixture"),
            (lambda m: ByteLM.contrastive(m, m, 0), "`plausibility` is 0"),
            (lambda m: ByteLM.anchored(m, m, -1), "`budget` is -1"),
            (lambda m: ByteLM.proxy_tuned(m, m, m, math.nan), "`alpha` is nan"),
            (lambda m: ByteLM.ensemble([m]).complete("a", unit="token"), "byte by byte"),
            (lambda m: ByteLM.ensemble([m]).complete("a", max_tokens=3), "`max_tokens` is 3"),
            (
                lambda m: ByteLM.ensemble([m]).complete("a", repetition_penalty=2),
                "`repetition_penalty` is 2.*several models",
            ),
        ],
    )
    def test_values(self, make: Callable[[Any], Any], said: str) -> None:
        with pytest.raises(InvalidValueError, match=said):
            make(lm())

    @pytest.mark.parametrize(
        ("make", "said"),
        [
            (lambda m: ByteLM.ensemble(m), "`members`"),
            (lambda m: ByteLM.ensemble([m, m.asynchronous]), r"`members\[1\]`.*must be a ByteLM"),
            (lambda m: ByteLM.ensemble([m], weights=["a"]), "`weights`"),
            (lambda m: ByteLM.ensemble([m, m], contexts="ab"), "`contexts`"),
            (lambda m: ByteLM.anchored(m, m, "1"), "`budget`"),
        ],
    )
    def test_types(self, make: Callable[[Any], Any], said: str) -> None:
        with pytest.raises(InvalidTypeError, match=said):
            make(lm())

    def test_atomic_units(self) -> None:
        toy = ToyLM(FIRST, eos=4)
        with_units = ByteLM(toy, EXACT, trie_opts={"atomic_tokens": [b"ab"]})
        with pytest.raises(GenlmBytesError, match="atomic_tokens"):
            ByteLM.ensemble([lm(), with_units]).next("c")


class TestWhole:
    """Errors, cancellation and limits of one member reach whoever asks."""

    async def test_a_member_that_fails(self) -> None:
        class Fails(ToyLM):
            async def next_token_logprobs(self, token_ids: Sequence[int], lora_name: None = None) -> Any:
                if len(token_ids) > 2:
                    raise RuntimeError("out of order")
                return await super().next_token_logprobs(token_ids)

        members = [AsyncByteLM(ToyLM(FIRST, eos=4), EXACT), AsyncByteLM(Fails(FIRST, eos=4), EXACT)]
        with pytest.raises(RuntimeError, match="out of order"):
            await AsyncByteLM.ensemble(members).score("abcabc")

    async def test_cancelled(self) -> None:
        begun, ended = asyncio.Event(), []

        class Hangs(ToyLM):
            async def next_token_logprobs(self, token_ids: Sequence[int], lora_name: None = None) -> Any:
                begun.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    ended.append(tuple(token_ids))

        members = [AsyncByteLM(ToyLM(FIRST, eos=4), EXACT), AsyncByteLM(Hangs(FIRST, eos=4), EXACT)]
        asked = asyncio.ensure_future(AsyncByteLM.ensemble(members).next("ab"))
        await begun.wait()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        await asyncio.sleep(0)
        assert ended

    def test_a_member_whose_context_is_full(self) -> None:
        """The ensemble writes no further than the shortest member can read, and says so when it must read."""

        class Short(Batching):
            max_length = 12

        whole, short = (ByteLM(CachedLM(kind(8.0)), BeamParams(K=2)) for kind in (Batching, Short))
        together = ByteLM.ensemble([whole, short])
        done = together.complete("the ", max_bytes=60, mask=lambda new: b"abcdehimnorst")
        assert done.finish_reason == "length" and 6 < len(done.bytes) < 60
        drawn = together.complete("the ", particles=2, max_bytes=60, mask=lambda new: b"abcdehimnorst")
        assert {one.finish_reason for one in drawn} == {"length"} and len(drawn[0].bytes) < 60
        with pytest.raises(GenlmBytesError, match="at most 12 tokens"):
            together.beam("the cat is on the mat. a ton of hats")
        assert math.isfinite(
            together.score("the cat is on the mat. a ton of hats").logprob
        )  # through windows

    def test_members_of_one_model_share_its_contexts(self) -> None:
        toy = BatchingToy(FIRST, eos=4)
        member = ByteLM(toy, EXACT)
        ByteLM.ensemble([member, member, member]).score("abcabcab")
        assert len(toy.asked) == len(set(toy.asked))


class TestShared:
    """What members have in common is worked out once, and nothing comes out otherwise for it."""

    @staticmethod
    def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """The bytes that beams read from now on."""
        found, advance = list[int](), ByteBeamState.advance

        async def noted(self: Any, symbol: int, **options: Any) -> Any:
            found.append(symbol)
            return await advance(self, symbol, **options)

        monkeypatch.setattr(ByteBeamState, "advance", noted)
        return found

    @pytest.mark.parametrize("op", ["prod", "mixture", 2])
    def test_members_after_the_same_stay_one(self, op: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        toy = ToyLM(FIRST, eos=4)
        one, other = ByteLM(toy, EXACT), ByteLM(toy, EXACT)
        apart = ByteLM.ensemble([one, other, other], op, contexts=["ab", "ab", "c"])
        once = ByteLM.ensemble([one, one, one], op, contexts=["ab", b"ab", "c"])
        wanted = np.array([said(apart, text) for text in (b"", b"ca")]), apart.score("abca").logprobs
        done, drawn = (apart.complete("a", max_bytes=3, **how) for how in ({}, {"particles": 3, "seed": 1}))
        read = self.read(monkeypatch)
        state = once.beam("ca")
        for after in (state, state.prune(), once.run(state << 97), once.run(state.prefill(b"bc"))):
            assert after.members[0] is after.members[1] is not after.members[2]
        assert len(read) == (2 + 1) + 2 * 2 + 2 * (1 + 2)  # contexts, text, what came after
        assert np.array([said(once, text) for text in (b"", b"ca")]) == pytest.approx(wanted[0], abs=1e-12)
        assert once.score("abca").logprobs == pytest.approx(wanted[1], abs=1e-12)
        assert once.complete("a", max_bytes=3).bytes == done.bytes
        again = once.complete("a", max_bytes=3, particles=3, seed=1)
        assert [one.bytes for one in again] == [one.bytes for one in drawn]

    def test_what_contexts_begin_with(self, monkeypatch: pytest.MonkeyPatch) -> None:
        toy = ToyLM(FIRST, eos=4)
        contexts = ["abcabcabca", "abcabcabcb", "abcabcabcb", "abcabcabc"]
        apart = ByteLM.ensemble([ByteLM(toy, EXACT) for _ in contexts], "sum", contexts=contexts)
        wanted, read = said(apart, b"a"), self.read(monkeypatch)
        once = ByteLM.ensemble([ByteLM(toy, EXACT)] * 4, "sum", contexts=contexts)
        assert said(once, b"a") == pytest.approx(wanted, abs=1e-12)
        assert len(read) == 9 + 2 + 3


class TestHowFarOff:
    """What a score by members that leave tokenizations out is expected to miss."""

    LIGHT = BeamParams(tolerance=0.3)

    @pytest.mark.parametrize("op", ["sum", "mixture"])
    @pytest.mark.parametrize("share", [0.2, 0.9])
    def test_what_follows_from_the_members(self, op: str, share: float) -> None:
        text, seed = b"abcabab", 3
        members = [ByteLM(lm(words, seed).llm, self.LIGHT) for words in (FIRST, SECOND)]
        score = ByteLM.ensemble(members, op, [share, 1 - share]).score(text)
        assert score.unfound is not None and 0.0 <= score.slack <= 1.0
        places = [ByteLM.ensemble([m], "sum").run(trace_of(m, text)) for m in members]
        nats = np.array([[beam.slack.nats for beam, _ in place] for place in places])
        logps = np.array([[total for _, total in place] for place in places])
        shares = np.array([[share], [1 - share]])
        if op == "mixture":
            wanted = np.log((shares * np.exp(logps + nats)).sum(0) / (shares * np.exp(logps)).sum(0))
        else:
            each = np.array(
                [[m.next(text[:i], method="beam")[b] for i, b in enumerate(text)] for m in members]
            )
            grown = (shares * np.exp(each + np.diff(nats))).sum(0) / (shares * np.exp(each)).sum(0)
            wanted = float(shares[:, 0] @ nats[:, 0]) + np.append(0.0, np.cumsum(np.log(grown)))
        assert score.unfound == pytest.approx(wanted, abs=1e-3)
        assert score.unfound[-1] > 0.01
        half = score[2:5]
        assert half.slack == pytest.approx(-math.expm1(-abs(score.unfound[5] - score.unfound[2])))

    @pytest.mark.parametrize("op", ["sum", "mixture", "prod", "max", 2])
    def test_known_of_means_only(self, op: Any) -> None:
        members = [ByteLM(lm(words).llm, self.LIGHT) for words in (FIRST, SECOND)]
        score = ByteLM.ensemble(members, op).score("abcab")
        assert (score.unfound is None) == math.isnan(score.slack) == (op not in ("sum", "mixture"))
        exact = ByteLM.ensemble([lm(FIRST), lm(SECOND)], op).score("abcab")
        assert op not in ("sum", "mixture") or (exact.slack, exact.error) == pytest.approx((0.0, 0.0))


class TestPotential:
    """As a potential of `genlm-control`."""

    async def test_its_weights(self) -> None:
        from genlm.bytes.integrations.genlm_control import BytePotential

        members = [lm(FIRST, 1), lm(SECOND, 2)]
        potential = BytePotential(ByteLM.ensemble(members, weights=[1, 1]), "a", cache_size=2)
        weight = 1.0
        for at in range(4):
            context = [bytes([b]) for b in b"bcab"[:at]]
            ps = np.prod([conditionals(m, b"a" + b"bcab"[:at]) for m in members], axis=0)
            assert await potential.prefix(context) == pytest.approx(math.log(weight), abs=1e-9)
            assert await potential.complete(context) == pytest.approx(math.log(weight * ps[3]), abs=1e-9)
            found = (await potential.logw_next(context)).materialize()
            assert [found[bytes([b])] for b in b"abc"] == pytest.approx(np.log(ps[:3]).tolist(), abs=1e-9)
            weight *= ps["abc".index(chr(b"bcab"[at]))]
        assert await potential.prefix([b"x"]) == -math.inf
        assert await potential.prefix([b"x", b"a"]) == -math.inf
        with pytest.raises(InvalidTypeError, match="`lm`"):
            BytePotential("no model")  # type: ignore[arg-type]
        await potential.cleanup()

    @pytest.mark.slow
    async def test_under_its_samplers(self) -> None:
        from genlm.control import direct_token_sampler

        from genlm.bytes.integrations.genlm_control import BytePotential

        # Exact beams hold twice as many candidates after each byte, and some draw is long.
        pruned = BeamParams(tolerance=1e-3)
        members = [ByteLM(lm(*each).llm, pruned) for each in [(FIRST, 1), (SECOND, 2)]]
        both = BytePotential(ByteLM.ensemble(members, weights=[1, 1]))
        totals = []
        for potential in (BytePotential(members[0]), both):
            drawn = await direct_token_sampler(potential).smc(
                n_particles=10, ess_threshold=0.5, max_tokens=99
            )
            totals.append(float(drawn.log_ml))
            assert all(
                set(b"".join(b for b in text if isinstance(b, bytes))) <= set(b"abc") for text, _ in drawn
            )
        assert totals[0] == pytest.approx(0.0, abs=1e-6) and totals[1] < -0.5  # products of two sum to less


class TestCommands:
    """`--model` given several times."""

    def test_complete_and_score(self, run: Run) -> None:
        model = ToyLM([*(bytes([b]) for b in range(256)), b"<e>"], eos=256)
        two = ("--model", "A", "--model", "A")
        alone = run("complete", "a", "--max-bytes", "4", "--any-bytes", model=model)
        done = run("complete", "a", "--max-bytes", "4", "--any-bytes", "--op", "sum", *two, model=model)
        assert done.code == alone.code == 0 and done.out == alone.out and len(done.loaded) == 1
        scored = run("score", "ab", "--op", "0.5", "--weights", "3,1", *two, model=model)
        columns = scored.out.split(b"\n")[1].split(b"\t")
        assert columns[:6] == run("score", "ab", model=model).out.split(b"\n")[1].split(b"\t")[:6]
        chatted = run("chat", "ab", "--max-bytes", "3", *two)
        assert chatted.out == run("chat", "ab", "--max-bytes", "3").out != b""
        drawn = run("complete", "a", "--max-bytes", "2", "--particles", "3", "--json", model=model)
        assert drawn.out.count(b"log_weight") == 3

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (["--op", "sum"], "give --model twice"),
            (["--model", "A", "--model", "B", "--op", "some"], "`--op` is 'some'"),
            (["--weights", "1,2"], "--weights: there is one model only"),
            (["--model", "A", "--model", "B", "--weights", "a"], "--weights"),
            (["--model", "A", "--model", "B", "--weights", "1,2,3"], "`--weights`"),
        ],
    )
    def test_mistakes_are_found_before_a_model_is_loaded(
        self, run: Run, options: list[str], said: str
    ) -> None:
        done = run("complete", "a", *options, model=ToyLM(FIRST, eos=4))
        assert done.code in (1, 2) and said in done.err.replace("\n", " ") and done.loaded == []

    def test_where_one_is_meant(self, run: Run) -> None:
        done = run("info", "--model", "A", "--model", "B", model=ToyLM(FIRST, eos=4))
        assert done.code == 2 and "one model at a time" in done.err


def test_what_is_impossible_to_a_divisor_alone_is_possible() -> None:
    """It counts as 1e-9 there, and not as nothing, by which nothing can be divided."""
    base, other = lm([b"a", b"b", b"<e>"], 1), lm([b"b", b"c", b"<e>"], 2)
    rows = [conditionals(m, b"b") for m in (base, other)]
    wanted = rows[0] / np.maximum(rows[1], 1e-9)
    found = said(ByteLM.ensemble([base, other], weights=[1, -1]), b"b")
    assert found == pytest.approx(wanted / wanted.sum(), abs=1e-12)
