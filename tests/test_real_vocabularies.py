"""The trie and the beam on the vocabularies of real tokenizers, one of each family.

| | family | tokens | peculiarities |
|---|---|---|---|
| smollm2 | byte-level BPE | 49,152 | 20-odd bytes are in no token at all |
| sentencepiece | SentencePiece with byte fallback | 32,000 | every ASCII character is spelled twice |
| tekken | byte-level BPE over all 256 bytes | 131,072 | 1,000 special tokens |

The model on top is a table: tokens are drawn independently, so the probability of any text can be worked
out exactly, by dynamic programming over its positions.
"""

from __future__ import annotations

import base64
import json
import math
from collections import Counter
from functools import cache
from importlib.resources import files

import numpy as np
import pytest
import torch
from genlm.backend.tokenization import Token
from toy import FixedLM

from genlm.bytes import BeamParams, ByteBeamState, TokenByteTrie
from genlm.bytes.errors import ImpossibleByteError
from genlm.bytes.trie import EOS, TrieArrays, TrieMode

NAMES = ["smollm2", "sentencepiece", "tekken"]
SIZE = {"smollm2": 49_152, "sentencepiece": 32_000, "tekken": 131_072}
MARKS = {"smollm2": pytest.mark.real_model, "sentencepiece": (), "tekken": pytest.mark.slow}
END = {"smollm2": b"<|im_end|>", "sentencepiece": b"</s>", "tekken": b"<SPECIAL_2>"}

TEXT = (
    "An apple a day keeps the doctor away.\n\n\tdef fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)\n"
    "Größenwahn, naïveté; 東京は日本の首都です。 Привет, мир! 🍎🍏 https://example.com/a?b=c&d=%20 "
    "the the the     aaaaaaaaaaaaaaaaaaaaaaaa 3.14159265358979323846264338327950288419716"
).encode()
# Cut inside a character, followed by a stray continuation, an impossible lead byte, and NULs.
BROKEN = (
    TEXT[:100] + "é".encode()[:1] + b"a" + "東".encode()[1:] + b"\x00\x00 \xff" + "🍎".encode()[:3] + b"z"
)


def _smollm2() -> list[Token]:
    from genlm.backend.tokenization import decode_vocab
    from transformers import AutoTokenizer

    from genlm.bytes.models import default_model_path

    folder = default_model_path(progress=False)
    tokens, _ = decode_vocab(AutoTokenizer.from_pretrained(folder, local_files_only=True))
    return tokens


def _sentencepiece() -> list[Token]:
    from sentencepiece import SentencePieceProcessor

    model = SentencePieceProcessor(
        model_proto=(files("mistral_common") / "data/tokenizer.model.v1").read_bytes()
    )
    pieces = [model.id_to_piece(i) for i in range(model.vocab_size())]
    return [
        Token(i, bytes([int(p[3:5], 16)]) if model.is_byte(i) else p.replace("▁", " ").encode())
        for i, p in enumerate(pieces)
    ]


def _tekken() -> list[Token]:
    data = json.loads((files("mistral_common") / "data/tekken_240911.json").read_text(encoding="utf-8"))
    special, size = data["config"]["default_num_special_tokens"], data["config"]["default_vocab_size"]
    words = [base64.b64decode(entry["token_bytes"]) for entry in data["vocab"][: size - special]]
    words = [f"<SPECIAL_{i}>".encode() for i in range(special)] + words
    return [Token(i, w) for i, w in enumerate(words)]


@cache
def vocabulary(name: str) -> list[Token]:
    return {"smollm2": _smollm2, "sentencepiece": _sentencepiece, "tekken": _tekken}[name]()


@cache
def spellings(name: str) -> list[bytes]:
    return [bytes(token) for token in vocabulary(name)]


@cache
def probabilities(name: str) -> np.ndarray:
    """Zipf's law over the ids, which in every tokenizer run from frequent to rare; no context."""
    weights = 1.0 / (10.0 + np.arange(len(vocabulary(name))))
    return weights / weights.sum()


@cache
def table(name: str) -> FixedLM:
    p = probabilities(name)
    return FixedLM(spellings(name), eos=spellings(name).index(END[name]), rule=lambda context: p)


def producible(name: str, text: bytes) -> bytes:
    known = set(b"".join(spellings(name)))
    return bytes(b for b in text if b in known)


def walk(trie: TokenByteTrie, text: bytes) -> int | None:
    node = trie.root
    for byte in text:
        if byte not in trie.children[node]:
            return None
        node = trie.children[node][byte]
    return node


def exact_log_prefix(name: str, text: bytes) -> float:
    """log P(the model's text begins with `text`): a sum over all tokenizations, by position."""
    of_word: dict[bytes, float] = {}
    for word, p in zip(spellings(name), probabilities(name).tolist(), strict=True):
        of_word[word] = of_word.get(word, 0.0) + p
    longest = max(map(len, of_word))
    reached: list[list[float]] = [[] for _ in text]  # log-probabilities of the ways to end a token there
    reached[0] = [0.0]
    ways = []
    for i in range(len(text)):
        here, rest = float(np.logaddexp.reduce(reached[i] or [-np.inf])), text[i:]
        if len(rest) <= longest:  # the last token reaches the end, or goes past it …
            ways.append(here + log(sum(p for word, p in of_word.items() if word.startswith(rest))))
        for n in range(1, min(longest, len(rest) - 1) + 1):  # … or another one follows
            if rest[:n] in of_word:
                reached[i + n].append(here + log(of_word[rest[:n]]))
    return float(np.logaddexp.reduce(ways))


def log(p: float) -> float:
    return math.log(p) if p > 0 else -math.inf


@pytest.fixture(
    scope="module",
    params=[pytest.param(n, marks=MARKS[n]) for n in NAMES],
)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def trie(name):
    return TokenByteTrie(vocabulary(name), device="cpu", eos_byte_strings=[END[name]])


class TestTrie:
    def test_shape(self, name, trie):
        assert len(trie.decode) == SIZE[name]
        trie.validate()
        prefixes = {word[:i] for word in spellings(name) for i in range(len(word) + 1)}
        assert len(trie.arrays) == len(prefixes)
        assert trie.node_count == len(prefixes) + 1 + SIZE[name]

    def test_duplicates_have_a_leaf_each(self, name, trie):
        counts = Counter(spellings(name))
        repeated = {word for word, n in counts.items() if n > 1}
        if name == "sentencepiece":
            assert b"A" in repeated and counts[b" "] == 2
        for word in sorted(repeated)[:100]:
            ending = [token_id for _, token_id in trie.tokens_ending_at(walk(trie, word))]
            assert ending == [i for i, w in enumerate(spellings(name)) if w == word]

    def test_memory(self, trie):
        """Measured: 29.3 to 30.0 bytes a node, 80 to 91 a token; see benchmarks/trie.py for release 0.2.0."""
        trie.weight_sum(np.zeros(len(trie.decode)))  # builds what sums need
        assert trie.nbytes < 32 * trie.node_count
        assert trie.nbytes < 100 * len(trie.decode)

    def test_children_spell_every_token(self, name, trie):
        rng = np.random.default_rng(0)
        for i in rng.integers(SIZE[name], size=300).tolist():
            word = spellings(name)[i]
            node = walk(trie, word)
            assert bytes(trie.node2prefix[node]) == word
            leaf = trie.children[node][trie.eot_sentinel, i]
            assert trie.leaf2word[leaf] == (word, i)
            assert trie.word2leaf[word, i] == leaf

    def test_children_at_the_root(self, name, trie):
        first = {word[0] for word in spellings(name) if word}
        assert set(trie.children[trie.root]) == first | {EOS}

    @pytest.mark.parametrize("mode", list(TrieMode))
    def test_sums_are_those_of_brute_force(self, name, trie, mode):
        words = spellings(name)
        rng = np.random.default_rng(1)
        weights = rng.random(len(words)) ** 20  # over many orders of magnitude
        sums = trie.weight_sum(torch.from_numpy(weights), mode).numpy()
        most = trie.weight_max(torch.from_numpy(weights)).numpy()
        assert sums[trie.root] == pytest.approx(weights.sum(), rel=1e-6)
        end = sum(w for w, word in zip(weights, words, strict=True) if word == END[name])
        assert sums[trie.eos_node] == pytest.approx(end if mode is TrieMode.WITH_EOS else 0.0, rel=1e-6)
        text = np.array([mode is TrieMode.WITHOUT_EOS or word != END[name] for word in words])
        picked = rng.integers(len(words), size=50).tolist()
        prefixes = {words[i][: rng.integers(1, len(words[i]) + 1)] for i in picked if words[i]}
        for prefix in prefixes | {END[name][:1], END[name]}:
            below = np.array([word.startswith(prefix) for word in words])
            node = walk(trie, prefix)
            want = weights[below & text].sum()
            assert sums[node] == pytest.approx(want, rel=1e-6, abs=1e-12)
            assert most[node] == pytest.approx(weights[below].max(), rel=1e-6)

    def test_a_walk_through_text(self, name, trie):
        """From each position of a text: as far as any token goes, and no further."""
        words = set(spellings(name))
        prefixes = {word[:i] for word in words for i in range(1, len(word) + 1)}
        for i in range(0, len(TEXT), 7):
            node, n = trie.root, 0
            while n < 40 and i + n < len(TEXT) and (child := trie.children[node].get(TEXT[i + n])):
                node, n = child, n + 1
                ends = any(isinstance(edge, tuple) for edge in trie.children[node])
                assert ends == (TEXT[i : i + n] in words)
            assert TEXT[i : i + n] in prefixes or n == 0
            assert n == 40 or i + n == len(TEXT) or TEXT[i : i + n + 1] not in prefixes


class TestBeam:
    async def start(self, name, **opts):
        settings = {"K": 5, "prune_threshold": 0.01, "eos_byte_strings": [END[name]]} | opts
        return await ByteBeamState.initial(table(name), BeamParams(**settings))

    async def test_a_second_beam_builds_nothing(self, name, monkeypatch):
        first = await self.start(name)

        def build(*_):
            raise AssertionError("a trie was built again")

        monkeypatch.setattr(TrieArrays, "build", build)
        monkeypatch.setattr(TokenByteTrie, "__init__", build)
        second = await self.start(name, K=3)
        assert second.states[0].trie is first.states[0].trie

    @pytest.mark.parametrize("text", [TEXT, BROKEN], ids=["text", "broken"])
    async def test_reads_three_hundred_bytes(self, name, text):
        text = producible(name, text)
        beam = await (await self.start(name)).prefill(text)
        exact = exact_log_prefix(name, text)
        assert beam.logZ <= exact + 1e-6
        # Measured: 0.01 to 6 nats of about 1,000, most for SentencePiece, where every letter is ambiguous.
        assert beam.logZ > exact - 10
        for state in beam:
            assert state.weight == pytest.approx(self.direct(name, state), abs=1e-9)
        ps = np.exp((await beam.logp_next()).ps)
        assert ps.sum() == pytest.approx(1.0, abs=1e-9)

    @pytest.mark.parametrize("text", [b" the", "ß東".encode(), b"\x00\xff", b"  \n\t"], ids=repr)
    async def test_exact_when_nothing_is_dropped(self, name, text):
        text = producible(name, text)
        beam = await (await self.start(name, K=10**6, prune_threshold=0.0)).prefill(text)
        assert beam.logZ == pytest.approx(exact_log_prefix(name, text), abs=1e-9)
        ps = np.exp((await beam.logp_next()).ps)
        assert ps[:256].sum() + ps[EOS] == pytest.approx(1.0, abs=1e-9)
        for byte in producible(name, b" a\n\xe6"):
            longer = exact_log_prefix(name, text + bytes([byte]))
            # The end of the sequence takes its share from the byte that its spelling begins with.
            assert math.log(ps[byte]) <= longer - beam.logZ + 1e-9

    async def test_the_impossible_byte_is_named(self, name):
        missing = sorted(set(range(256)) - set(b"".join(spellings(name))))
        beam = await self.start(name)
        if name != "smollm2":
            assert not missing
            everything = await beam.prefill(bytes(range(256)))
            assert everything.logZ > -math.inf
            return
        assert 0x04 in missing
        for byte in missing:
            with pytest.raises(
                ImpossibleByteError, match=f"byte 0x{byte:02x} .* offset 5, after b'apple'"
            ) as caught:
                await beam.prefill(b"apple" + bytes([byte]) + b"pie")
            assert (caught.value.byte, caught.value.offset, caught.value.producible) == (byte, 5, False)

    async def test_healing(self, name):
        """One candidate, extended only where the end of a token is likely: it runs into dead ends."""
        text = producible(name, TEXT)
        with pytest.raises(ImpossibleByteError) as caught:
            await (await self.start(name, K=1, prune_threshold=0.3, heal=False)).prefill(text)
        assert caught.value.producible and caught.value.byte == text[caught.value.offset]

        beam = await (await self.start(name, K=1, prune_threshold=0.3)).prefill(text)
        (state,) = beam
        assert b"".join(spellings(name)[i] for i in state.lm_state.context[1:]) + bytes(state.partial) == text
        assert state.weight == pytest.approx(self.direct(name, state), abs=1e-9)
        assert beam.logZ < exact_log_prefix(name, text)

    def direct(self, name, state) -> float:
        """The weight of a candidate from its definition."""
        p = probabilities(name)
        partial = bytes(state.partial)
        begun = sum(p[i] for i, word in enumerate(spellings(name)) if word.startswith(partial))
        committed = sum(math.log(p[i]) for i in state.lm_state.context[1:])
        return committed + (math.log(begun) if partial else 0.0)


async def test_duplicates_are_all_extended():
    words = spellings("sentencepiece")
    settings = BeamParams(K=100, prune_threshold=0.0)
    (state,) = await (await ByteBeamState.initial(table("sentencepiece"), settings)).prefill(b"A")
    both = [i for i, word in enumerate(words) if word == b"A"]
    assert len(both) == 2 and sorted(token_id for _, token_id in state.get_all_EOT()) == both
    assert sorted(extension.lm_state.context[-1] for extension in state.extend_all()) == both
    p = probabilities("sentencepiece")
    assert np.logaddexp.reduce([e.weight for e in state.extend_all()]) == pytest.approx(
        math.log(p[both].sum())
    )
