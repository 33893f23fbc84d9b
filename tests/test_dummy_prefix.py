"""Tokenizers that write a space before a text: SentencePiece, and byte-level with `add_prefix_space`."""

from __future__ import annotations

import copy
import math
from importlib.resources import files

import numpy as np
import pytest
from brute import Brute
from families import MISTRAL, SCHEMES, byte_level, family, model, sentencepiece
from tokenizers import normalizers
from toy import ToyLM

from genlm.bytes import AsyncByteLM, BeamParams
from genlm.bytes.byte_lm.encoder import text_encoder
from genlm.bytes.byte_lm.token_path import draft_tokens
from genlm.bytes.byte_lm.tokenized_prefill import KEPT_OPEN
from genlm.bytes.prompt import Prompt, parse_context
from genlm.bytes.prompt.chat import parse_messages
from genlm.bytes.prompt.infill import infill
from genlm.bytes.vocab import shared_trie, spell

EXACT = BeamParams(K=10**6, prune_threshold=0.0)
PROMPTS = ["x = fib(10)", "fib", " x", "  x", "", "\nx", "é x", "10", "x <s> x", "▁x", " "]
TOKENIZERS = {**{s: lambda s=s: sentencepiece(s) for s in SCHEMES}, "bytes": lambda: byte_level(prefix=True)}


FIM = ("▁<PRE>", "▁<SUF>", "▁<MID>")


@pytest.fixture(scope="module")
def coder():
    """A small Code Llama."""
    tokenizer = sentencepiece()
    tokenizer.add_special_tokens({"additional_special_tokens": [*FIM, "▁<EOT>"]})
    return model(tokenizer)


@pytest.fixture(scope="module")
def lower():
    return model(byte_level(normalizer=normalizers.Lowercase()))


@pytest.fixture(scope="module", params=TOKENIZERS)
def llm(request):
    return model(TOKENIZERS[request.param]())


def trie_of(llm):
    return shared_trie(llm, (), None).trie


def encode(llm, text):
    return llm.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)


class TestTheTokenizersOwnPath:
    @pytest.mark.parametrize("text", PROMPTS)
    async def test_without_healing(self, llm, text):
        """`transformers.generate` reads these tokens."""
        read = await AsyncByteLM(llm, EXACT, eos=[])._read(text, healing=False)
        assert read.beam.states[0].lm_state.context == [llm.bos, *(encode(llm, text) if text else [])]
        assert read.text == text.encode()

    @pytest.mark.parametrize(
        "text", ["x = fib(10) x = fib(10) hi", "fib fib fib fib", "10 x  = 1", "é x hi x"]
    )
    async def test_read(self, llm, text):
        lm = AsyncByteLM(llm, BeamParams(K=5, prune_threshold=0.1), eos=[])
        ids = [llm.bos, *encode(llm, text)]
        healed = await lm.beam(text, method="heal")
        assert healed.states[0].lm_state.context == ids[:-1]
        assert healed.tokenizations()[0].canonical
        closed = 1 + len(ids[1:-KEPT_OPEN]) // 2
        for state in await lm.beam(text, method="tokenize"):
            assert state.lm_state.context[:closed] == ids[:closed]

    def test_inside_a_text(self, llm):
        """What follows other text has no space of its own, and is cut as in the middle."""
        ids = encode(llm, "x = fib(10)")
        spelled = spell(llm, ids)
        for n in range(1, len(ids)):
            assert draft_tokens(llm, trie_of(llm), b"".join(spelled[n:])) == ids[n:]

    def test_no_byte_tokens_among_duplicates(self):
        """Where the tokenizer has no answer, a letter is not taken for the byte that stands for it."""
        llm = model(sentencepiece())
        llm.tokenizer = copy.deepcopy(llm.tokenizer)
        llm.tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
        names = llm.tokenizer.convert_ids_to_tokens(draft_tokens(llm, trie_of(llm), b"fib(X"))
        assert names == ["fib", "(", "<0x58>"]

    async def test_naive(self, llm):
        found = await AsyncByteLM(llm, EXACT, eos=[]).word_surprisal("x = fib", spans=[(0, 1), (1, 7)])
        ids = encode(llm, "x = fib")
        context, costs = [llm.bos], []
        for token in ids:
            costs.append(-math.log2(llm.probs(context)[token]))
            context.append(token)
        starts = np.cumsum([-len(text_encoder(llm, trie_of(llm)).lead), *map(len, spell(llm, ids))])
        first = sum(cost for cost, start in zip(costs, starts, strict=False) if start < 1)
        assert [row.naive for row in found] == pytest.approx([first, sum(costs) - first])


class TestProbabilities:
    """A text is what stands after the space that the tokenizer writes: its probability is given that."""

    WORDS = (b" ", b" x", b"x", b" x ", b"y", b"xy", b" y", b"<s>")

    @pytest.fixture
    def toy(self):
        llm = ToyLM(list(self.WORDS), bos=7)

        class Tokenizer:
            bos_token_id, eos_token_id = 7, None

            def encode(self, text, add_special_tokens):
                left, found = b" " + text.encode(), []
                while left:
                    found.append(next(i for i in (1, 6, 5, 2, 4, 0) if left.startswith(llm.words[i])))
                    left = left[len(llm.words[found[-1]]) :]
                return found

        llm.tokenizer = Tokenizer()
        return llm

    @pytest.mark.parametrize("text", [b"x", b"xy", b" x", b"y x"])
    async def test_exact(self, toy, text):
        lm, brute = AsyncByteLM(toy, EXACT, eos=[]), Brute(toy)
        space = math.log(brute.prefix(b" "))
        want = [math.log(brute.prefix(b" " + text[:n])) - space for n in range(1, len(text) + 1)]
        score = await lm.score(text)
        assert np.cumsum(score.logprobs) == pytest.approx(want, abs=1e-9)
        assert (await lm.beam(text)).logZ == pytest.approx(want[-1] + space, abs=1e-9)
        ahead = await lm.next(text, method="beam")
        total = [brute.prefix(b" " + text + bytes([b])) for b in b"xy <"]
        assert np.exp([ahead.ps[b] for b in b"xy <"]) == pytest.approx(np.array(total) / sum(total), abs=1e-9)
        split = await lm.score(text[1:], text[:1])
        assert split.logprobs == pytest.approx(score.logprobs[1:], abs=1e-9)

    async def test_nothing_of_it_comes_out(self, toy):
        lm = AsyncByteLM(toy, EXACT, eos=[])
        done = await lm.complete("x", max_bytes=3, echo=True)
        assert done.text.startswith("x") and done.usage.prompt_bytes == 1
        assert (await lm.complete("", max_bytes=3, seed=1)).usage.prompt_bytes == 0
        assert (await lm._read("x", healing=False)).beam.states[0].lm_state.context == [7, 1]

    async def test_a_beam_of_ones_own_reads_bytes_as_they_are(self, toy):
        from genlm.bytes import ByteBeamState

        beam = await (await ByteBeamState.initial(toy, EXACT)).prefill(b"x")
        assert beam.logZ == pytest.approx(math.log(Brute(toy).prefix(b"x")), abs=1e-9)


class TestAfterSpecialTokens:
    def test_as_the_tokenizer_does(self, llm):
        """After a special token some write a space and some do not."""
        trie, eos = trie_of(llm), llm.eos
        whole = llm.tokenizer.encode("x</s>x</s>fib", add_special_tokens=False)
        got = parse_context(llm, trie, ("x", eos, "x", eos, "fib")).closed(llm, trie)
        assert got.ids == (llm.bos, *whole)
        assert got.spelled == b"x</s>x</s>fib"

    def test_after_the_beginning(self, llm):
        """A beginning-of-sequence token that is given by its id is the one that is put there anyway."""
        trie = trie_of(llm)
        given, plain = (parse_context(llm, trie, p).closed(llm, trie).ids for p in ((llm.bos, "x"), "x"))
        assert given == plain

    def test_messages(self):
        for name in ("v1", "v3"):
            llm = family(name)
            turn = [{"role": "user", "content": "hi x"}, {"role": "assistant", "content": "well \n"}]
            got = parse_messages(llm, turn)
            want = llm.tokenizer.apply_chat_template(
                turn, tokenize=True, return_dict=False, continue_final_message=True
            )
            assert list(got.closed(llm, trie_of(llm)).ids) == want
            assert got.text.endswith(b"well \n") and not got.text.startswith(b" ")
            assert parse_messages(llm, [*turn[:1], {"role": "assistant", "content": ""}]) == parse_messages(
                llm, turn[:1]
            )

    def test_messages_that_are_refused(self):
        from genlm.bytes.errors import InvalidValueError

        with pytest.raises(InvalidValueError, match="mistral-common refuses these messages"):
            parse_messages(family("v3"), [{"role": "nobody", "content": "hi"}])


class TestInfill:
    """Code Llama: a space before the prefix, none before the suffix, none before the middle."""

    def test_prefix_and_suffix(self, coder):
        pre, suf, mid = coder.tokenizer.convert_tokens_to_ids(list(FIM))
        name = coder.tokenizer.convert_tokens_to_ids
        got = infill(coder, trie_of(coder), "x = fib", "fib(10)")
        assert got == Prompt(
            (pre, *name(["▁x", "▁="]), suf, *name(["fib", "(", "1", "0", ")"]), mid),
            b" fib",
            b"x =",
            (b" <EOT>",),
        )
        assert infill(coder, trie_of(coder), "x", "").ids == (pre, suf, mid)

    def test_the_suffix_first(self, coder):
        pre, suf, _ = coder.tokenizer.convert_tokens_to_ids(list(FIM))
        name = coder.tokenizer.convert_tokens_to_ids
        got = infill(coder, trie_of(coder), "x =", "fib", (pre, suf, None))
        assert got == Prompt((suf, *name(["fib"]), pre), b"x =", lead=b" ")
        closed = infill(coder, trie_of(coder), "x =", "fib", (pre, suf, None), healing=False)
        assert closed.ids == (suf, *name(["fib"]), pre, *name(["▁x", "▁="]))


class TestNormalization:
    """What the tokenizer changes has no path of its own; closed, it is what the tokenizer makes of it."""

    async def test_naive(self, lower):
        lm = AsyncByteLM(lower, BeamParams(K=5), eos=[])
        own, changed = [await lm.word_surprisal(text, spans=[(0, 3)]) for text in ("the", "The")]
        assert own[0].naive == pytest.approx(-math.log2(lower.probs([0])[lower.tokenizer.encode("the")[0]]))
        assert math.isnan(changed[0].naive) and math.isfinite(changed[0].surprisal)
        broken = await lm.word_surprisal(b"the\xff", spans=[(0, 3)])
        assert math.isnan(broken[0].naive)

    async def test_closed(self, lower):
        read = await AsyncByteLM(lower, BeamParams(K=5), eos=[])._read("The", healing=False)
        assert read.beam.states[0].lm_state.context == [0, *lower.tokenizer.encode("the")]
        assert read.text == b"The"

    async def test_no_tokenization_is_the_tokenizers(self, lower):
        beam = await AsyncByteLM(lower, BeamParams(K=5), eos=[]).beam("The")
        assert not any(t.canonical for t in beam.tokenizations())


def test_the_first_mistral_is_sentencepieces_own():
    """A thousand bytes of text: the definition is SentencePiece."""
    from sentencepiece import SentencePieceProcessor

    data = (files("mistral_common") / "data" / MISTRAL["v1"]).read_bytes()
    definition = SentencePieceProcessor(model_proto=data)
    llm = family("v1")
    text = (
        "x = fib(10)  # 東京, naïve\n\tdef f(x):\n        return x ** 2 </s> [INST] It's\u3000“1998”. " * 10
    )
    want = definition.encode(text)
    assert parse_context(llm, trie_of(llm), text).closed(llm, trie_of(llm)).ids == (1, *want)
    spelled, at = spell(llm, want), 0
    for n in range(1, 60):
        at += len(spelled[n - 1])
        rest = b"".join(spelled[n:])
        assert draft_tokens(llm, trie_of(llm), rest)[:40] == want[n : n + 40]
    assert text_encoder(llm, trie_of(llm)).lead == b" "
