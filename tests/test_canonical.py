"""Canonical tokenizations: the rules against the tokenizers themselves.

The definition is `encode`: tokens are canonical if encoding what they spell gives them back, and open if
encoding what they spell and *something more* gives them first. The second is tried over a set of
continuations (`MORE`), which is rich enough for the small vocabularies here.
"""

from __future__ import annotations

import json
from functools import cache
from itertools import product
from types import SimpleNamespace

import pytest
from genlm.backend.tokenization import Token
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from genlm.bytes import TokenByteTrie
from genlm.bytes.byte_lm.canonical import CanonicalRules, canonical_rules

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN = LLAMA3.replace("{1,3}", "")
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEKKEN = O200K.replace("{1,3}", "").replace(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?", "")

CORPUS = [
    "it's they're we'll I'm don't 'tis the rest's  end\n\n  def f(x):\n    return x's + 1234567\n",
    "a  b   c    d \n \n\t x !' ''s !'s 12 345 6789 0  000 Größe größer naïve 東京 東京都 e\u0301 \u3000x",
    "s's t't re're 'S 'RE SaS aSs  's  're ' s ' re\r\n\r\n a\n a \n! !\n!!\n ?/ //\n",
] * 4
ALPHABET = [*"asreS'!/  \n\r\t12é東京Ω", "\u3000", "\u0301"]


def split(expression: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(Regex(expression), "isolated")


def byte_level(regex: bool = False) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex)


PRE_TOKENIZERS = {
    "gpt2": byte_level(True),
    "llama3": pre_tokenizers.Sequence([split(LLAMA3), byte_level()]),
    "qwen": pre_tokenizers.Sequence([split(QWEN), byte_level()]),
    "o200k": pre_tokenizers.Sequence([split(O200K), byte_level()]),
    "tekken": pre_tokenizers.Sequence([split(TEKKEN), byte_level()]),
    "starcoder": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level(True)]),
    "digits": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=False), byte_level(True)]),
    "whole": byte_level(False),
}
SENTENCEPIECE = {
    "llama2": (normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]), None),
    "always": (None, pre_tokenizers.Metaspace("▁", prepend_scheme="always", split=False)),
    "first": (None, pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=False)),
    "never": (None, pre_tokenizers.Metaspace("▁", prepend_scheme="never", split=False)),
}
NAMES = [*PRE_TOKENIZERS, *SENTENCEPIECE]


def trained(name: str, size: int = 420) -> Tokenizer:
    if name in PRE_TOKENIZERS:
        tokenizer = Tokenizer(BPE())
        tokenizer.pre_tokenizer = PRE_TOKENIZERS[name]
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
        tokenizer.train_from_iterator(CORPUS, trainer)
        tokenizer.add_special_tokens(["<|end|>", "<|mark|>"])
        return tokenizer
    learner = Tokenizer(BPE(unk_token="<unk>"))
    normalizer, pre_tokenizer = SENTENCEPIECE[name]
    learner.normalizer = normalizers.Replace(" ", "▁")
    bytes_ = [f"<0x{b:02X}>" for b in range(256)]
    trainer = BpeTrainer(
        vocab_size=size, special_tokens=["<unk>", "<s>", *bytes_], limit_alphabet=22, show_progress=False
    )
    learner.train_from_iterator(CORPUS, trainer)
    model = json.loads(learner.to_str())["model"]
    merges = [tuple(m) for m in model["merges"]]
    tokenizer = Tokenizer(BPE(model["vocab"], merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in ("<unk>", "<s>")])
    return tokenizer


def spelled(tokenizer: Tokenizer) -> list[Token]:
    """The vocabulary as bytes."""
    letters = {letter: b for b, letter in bytes_to_unicode().items()}
    fallback = json.loads(tokenizer.to_str())["model"]["byte_fallback"]
    added = tokenizer.get_added_tokens_decoder()
    tokens = []
    for text, i in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]):
        if i in added:
            spelling = text.encode()
        elif not fallback:
            spelling = bytes(letters[c] for c in text)
        elif text.startswith("<0x"):
            spelling = bytes([int(text[3:5], 16)])
        else:
            spelling = text.replace("▁", " ").encode()
        tokens.append(Token(i, spelling))
    return tokens


class Case:
    """A tokenizer, its rules, and the definition."""

    def __init__(self, tokenizer: Tokenizer, tokens: list[Token] | None = None) -> None:
        self.tokenizer = tokenizer
        self.tokens = spelled(tokenizer) if tokens is None else tokens
        self.trie = TokenByteTrie(self.tokens, device="cpu")
        self.rules: CanonicalRules = canonical_rules(SimpleNamespace(tokenizer=tokenizer), self.trie)
        self.bytes = {t.token_id: bytes(t) for t in self.tokens}
        description = json.loads(tokenizer.to_str())
        self.normalized = bool(description["normalizer"])
        self.space_first = self.normalized or (
            (description["pre_tokenizer"] or {}).get("prepend_scheme", "never") != "never"
        )

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def text(self, ids: list[int]) -> str | None:
        """The text that the tokens spell; None if they spell none."""
        data = b"".join(self.bytes[i] for i in ids)
        if self.space_first and data:
            if not data.startswith(b" "):
                return None
            if self.normalized:  # the mark is put before any text; else only where there is none yet
                data = data[1:]
        try:
            return data.decode()
        except UnicodeDecodeError:
            return None

    def canonical(self, ids: list[int]) -> bool:
        text = self.text(ids)
        return text is not None and self.encode(text) == ids

    def open(self, ids: list[int]) -> bool:
        n = len(ids)
        if not n:
            return True
        data = b"".join(self.bytes[i] for i in ids)
        ends = _character_ends(data)
        for end in ends:
            for more in MORE:
                text = self.text_of(data + end + more.encode())
                if text is not None and self.encode(text)[:n] == ids:
                    return True
        return False

    def text_of(self, data: bytes) -> str | None:
        self.bytes[-1] = data
        return self.text([-1])


MORE = ["", *ALPHABET, *map("".join, product("as \n'1京Ω丁eS", repeat=2))]


def _character_ends(data: bytes) -> list[bytes]:
    """What may complete the character that the bytes end in the middle of."""
    for n, pool in enumerate(([b""], [bytes([b]) for b in range(0x80, 0xC0)])):
        for end in pool:
            try:
                (data + end).decode()
            except UnicodeDecodeError:
                continue
            return pool if n else [b""]
    return [bytes(e) for e in product(range(0x80, 0xC0, 9), repeat=2)]


@cache
def case(name: str) -> Case:
    return Case(trained(name))


texts = st.lists(st.sampled_from(ALPHABET), max_size=7).map("".join)


@st.composite
def segmentations(draw: st.DrawFn, name: str) -> list[int]:
    """Tokens that are canonical in places: pieces of a text, encoded apart, some tokens cut in two."""
    it = case(name)
    ids = [i for piece in draw(st.lists(texts, max_size=3)) for i in it.encode(piece)]
    if it.space_first and draw(st.booleans()):
        ids = it.encode("".join(draw(st.lists(texts, max_size=3))))
    if ids and draw(st.booleans()):
        at = draw(st.integers(0, len(ids) - 1))
        word = it.bytes[ids[at]]
        cut = draw(st.integers(0, len(word)))
        of = {b: i for i, b in it.bytes.items() if i >= 0}
        halves = [of[w] for w in (word[:cut], word[cut:]) if w in of]
        if b"".join(it.bytes[i] for i in halves) == word:
            ids[at : at + 1] = halves
    return ids


@pytest.mark.parametrize("name", NAMES)
class TestAgainstTheTokenizer:
    def test_what_the_tokenizer_makes_is_allowed(self, name):
        @given(texts)
        def run(text):
            it = case(name)
            state = it.rules.start
            for token in it.encode(text):
                assert it.rules.allowed(state)[it.trie.token_ids.tolist().index(token)]
                state = it.rules.after(state, token)
            assert it.rules.complete(state)

        run()

    def test_canonical_and_open(self, name):
        @given(segmentations(name))
        def run(ids):
            it = case(name)
            state = it.rules.read(ids)
            assert (state is not None and it.rules.complete(state)) == it.canonical(ids)
            assert (state is not None) == it.open(ids)

        run()

    def test_pairs(self, name):
        """Every eighth token with all tokens behind it; and `allowed` says what `after` says."""
        it = case(name)
        ids = [t.token_id for t in it.tokens if t.token_id not in it.tokenizer.get_added_tokens_decoder()]
        place = {i: p for p, i in enumerate(it.trie.token_ids.tolist())}
        for first in ids[::8]:
            state = it.rules.after(it.rules.start, first)
            if state is None:
                continue
            allowed = it.rules.allowed(state)
            pairs = [[first, second] for second in ids if it.text([first, second]) is not None]
            encoded = it.tokenizer.encode_batch([it.text(p) for p in pairs], add_special_tokens=False)
            for pair, encoding in zip(pairs, encoded, strict=True):
                then = it.rules.after(state, pair[1])
                assert allowed[place[pair[1]]] == (then is not None)
                assert (then is not None and it.rules.complete(then)) == (encoding.ids == pair)
