"""Canonical tokenizations: the rules against the tokenizers themselves.

The definition is `encode`: tokens are canonical if encoding what they spell gives them back, and open if
encoding what they spell and *something more* gives them first. The second is tried over a set of
continuations (`MORE`), which is rich enough for the small vocabularies here.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
from budget import examples
from genlm.backend.tokenization import Token, decode_vocab
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE, Unigram, WordPiece
from tokenizers.trainers import BpeTrainer
from toy import ToyLM
from transformers.convert_slow_tokenizer import bytes_to_unicode

from genlm.bytes import TokenByteTrie
from genlm.bytes.canonical import CanonicalRules, automaton, canonical_rules
from genlm.bytes.canonical.automaton import Automaton
from genlm.bytes.canonical.characters import characters
from genlm.bytes.canonical.cutter import Cutter, Gap
from genlm.bytes.canonical.merges import MergeTable, merge_run
from genlm.bytes.canonical.pattern import parse
from genlm.bytes.canonical.scanner import Scanner
from genlm.bytes.canonical.spelled import Spelled
from genlm.bytes.errors import InvalidValueError, UnsupportedModelError

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
    "x\u0301 \u0301 e\u0323\u0302 한국\u1161",
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
    "nfc": pre_tokenizers.Sequence([split(QWEN), byte_level()]),
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
        if name == "nfc":
            tokenizer.normalizer = normalizers.NFC()
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
        self.normalized = description["model"]["byte_fallback"] and bool(description["normalizer"])
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


HERE = examples(25)


@pytest.mark.parametrize("name", NAMES)
class TestAgainstTheTokenizer:
    def test_what_the_tokenizer_makes_is_allowed(self, name):
        @HERE
        @given(texts)
        def run(text):
            it = case(name)
            places = it.trie.token_ids.tolist()
            state = it.rules.start
            for token in it.encode(text):
                assert it.rules.allowed(state)[places.index(token)]
                state = it.rules.after(state, token)
            assert it.rules.complete(state)

        run()

    def test_canonical_and_open(self, name):
        @HERE
        @given(segmentations(name))
        def run(ids):
            it = case(name)
            state = it.rules.read(ids)
            assert (state is not None and it.rules.complete(state)) == it.canonical(ids)
            assert (state is not None) == it.open(ids)

        run()

    def test_pairs(self, name):
        """Every thirty-second token with all tokens behind it; and `allowed` says what `after` says."""
        it = case(name)
        ids = [t.token_id for t in it.tokens if t.token_id not in it.tokenizer.get_added_tokens_decoder()]
        place = {i: p for p, i in enumerate(it.trie.token_ids.tolist())}
        for first in ids[::32]:
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

    def test_what_is_refused_stays_refused(self, name):
        """Not open now, not open later: so a beam may drop such a candidate."""
        it = case(name)
        broken = next(
            [i, j]
            for i, j in product(range(len(it.tokens)), repeat=2)
            if it.rules.read([i]) is not None and it.rules.read([i, j]) is None
        )
        assert all(it.rules.read([*broken, t.token_id]) is None for t in it.tokens)


class TestStates:
    def test_pairs_do_not_suffice(self):
        """`'` and `s` may follow each other after `!`, and not after a letter (unless nothing merges)."""
        it = case("gpt2")
        quote, s, bang, a = (it.encode(c)[0] for c in "'s!a")
        assert it.encode("a's") != [a, quote, s]
        assert it.rules.read([a, quote, s]) is None
        assert it.encode("!'s") == [bang, quote, s]
        assert it.rules.complete(it.rules.read([bang, quote, s]))

    def test_open_but_not_canonical(self):
        """The last of several spaces waits for what follows: nothing, or a word."""
        it = case("gpt2")
        two, one = it.encode("  ")[0], it.encode(" ")[0]
        omega = it.encode("Ω")
        assert it.encode("  " + " Ω") == [two, one, *omega], "no token merges a space with this letter"
        waiting = it.rules.read([two, one])
        assert waiting is not None and it.rules.complete(waiting) == (it.encode("   ") == [two, one])
        assert it.rules.complete(it.rules.read([two, one, *omega]))

    def test_added_tokens(self):
        """They divide texts, come after canonical stretches only, and are not spelled by other tokens."""
        it = case("gpt2")
        rules, mark = it.rules, it.tokenizer.token_to_id("<|mark|>")
        ids = [*it.encode("  "), mark, *it.encode("s're")]
        assert rules.complete(rules.read(ids)) and it.encode("  <|mark|>s're") == ids
        assert rules.read(ids[:2]) == rules.start
        half = it.encode("é")[:1]
        if len(it.encode("é")) > 1:
            assert not rules.allowed(rules.read(half))[it.trie.token_ids.tolist().index(mark)]
            assert rules.after(rules.read(half), mark) is None
        assert rules.read([it.encode(c)[0] for c in "<|mark|"]) is not None
        spelled = [it.encode(c)[0] for c in "<|mark|>"]
        assert rules.read(spelled) is None and it.encode("<|mark|>") == [mark]

    def test_made_once_for_a_vocabulary(self):
        it = case("gpt2")
        assert canonical_rules(SimpleNamespace(tokenizer=it.tokenizer), it.trie) is it.rules
        other = TokenByteTrie(it.tokens, device="cpu", eos_byte_strings=[b"<|end|>"])
        assert canonical_rules(SimpleNamespace(tokenizer=it.tokenizer), other) is it.rules
        again = Tokenizer.from_str(it.tokenizer.to_str())
        assert canonical_rules(SimpleNamespace(tokenizer=again), other) is not it.rules

    def test_too_many_states(self, monkeypatch):
        scanner = Scanner(Automaton(Spelled([b"abcdef"])), [b"abc", b"abcde"], gaps=False)
        monkeypatch.setattr(automaton, "_MOST_STATES", 3)
        with pytest.raises(UnsupportedModelError, match="more than 3 ways open at once"):
            scanner.rows(scanner.automaton.start)

    def test_unknown_token(self):
        with pytest.raises(InvalidValueError, match="`token_id` is 12345: must be a token of the trie"):
            case("gpt2").rules.after(case("gpt2").rules.start, 12345)


class TestMerges:
    @given(st.lists(st.tuples(*[st.text("ab", min_size=1, max_size=3)] * 2), max_size=8, unique=True))
    def test_follow(self, pairs):
        """Against merging the two tokens together, for merges in any order."""
        words = sorted({"a", "b"} | {w for x, y in pairs for w in (x, y, x + y)})
        of = {w: i for i, w in enumerate(words)}
        merges = {(of[x], of[y]): (rank, of[x + y]) for rank, (x, y) in enumerate(pairs)}
        table = MergeTable([[of[c] for c in w] for w in words], range(len(words)), merges)
        for i, w in enumerate(words):
            assert table.reachable[i] == (merge_run([of[c] for c in w], merges).result == [i])
        steady = [i for i in np.flatnonzero(table.reachable).tolist() if i not in table.falling]
        for i in steady:
            row = table.follow(i)
            for j in steady:
                together = merge_run([of[c] for c in words[i] + words[j]], merges).result
                assert row[j] == (together == [i, j]), (words[i], words[j])


class TestPatterns:
    @pytest.mark.parametrize(
        "source",
        [r"\p{L}++|.", r"(?<=a)b|[\s\S]", r"^a|[\s\S]", r"(a|b)\1", r"(?!ab)a", r"[a&&b]", r"a(", r"a)"],
    )
    def test_what_is_not_understood_is_refused(self, source):
        with pytest.raises(UnsupportedModelError, match="uses syntax that is not understood at"):
            parse(source)

    @pytest.mark.parametrize("source", [r"\p{L}+", r"[\s\S]*", r"ab|[\s\S]{2}"])
    def test_an_expression_must_match_every_character(self, source):
        tokenizer = trained("gpt2", 300)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split(source), byte_level()])
        with pytest.raises(UnsupportedModelError, match="does not match every character"):
            Case(tokenizer)

    @HERE
    @given(st.text(ALPHABET, max_size=12))
    def test_lazy_and_counted(self, text):
        """Quantifiers that no known tokenizer has, against the library's own expressions."""
        source = r"a{2,3}?|s+?r|e{2}|(?:r|1){1,2}(?=a)|[\s\S]"
        pattern = parse(source)
        classes = characters(pattern.sets)
        cutter = Cutter(pattern, classes, list(range(len(pattern.sets))))
        pieces = [piece for piece, _ in split(source).pre_tokenize_str(text)]
        cuts = {len("".join(pieces[:i])) for i in range(len(pieces))}
        # Every cut at a border that must be cut, none elsewhere: only the true cuts survive to the end.
        for wrong in (None, *range(1, len(text))):
            chain = cutter.start
            for i, c in enumerate(text):
                cut = (i in cuts) != (i == wrong)
                gap = Gap.OPEN if i == 0 else Gap.CONFLICT if cut else Gap.INSIDE
                chain = chain and cutter.read(chain, int(classes.of[ord(c)]), gap)
            assert bool(chain and cutter.ends(chain)) == (wrong is None)


def refused(reason: str, change) -> None:
    tokenizer = trained("gpt2", 300)
    tokenizer = change(tokenizer) or tokenizer
    with pytest.raises(UnsupportedModelError, match=reason):
        Case(tokenizer, spelled(trained("gpt2", 300)))


class TestRefusals:
    @pytest.mark.parametrize(
        ("reason", "change"),
        [
            ("a Unigram model", lambda t: Tokenizer(Unigram([("a", 0.0)]))),
            ("a WordPiece model", lambda t: Tokenizer(WordPiece({"[UNK]": 0}))),
            ("drops merges at random", lambda t: setattr(t.model, "dropout", 0.1)),
            ("continuing subword prefix", lambda t: setattr(t.model, "continuing_subword_prefix", "##")),
            ("normalizes text .Lowercase.", lambda t: setattr(t, "normalizer", normalizers.Lowercase())),
            ("normalizes text .NFKC.", lambda t: setattr(t, "normalizer", normalizers.NFKC())),
            (
                "does not end in ByteLevel",
                lambda t: setattr(t, "pre_tokenizer", pre_tokenizers.Whitespace()),
            ),
            (
                "puts a space before a text",
                lambda t: setattr(t, "pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=True)),
            ),
            (
                "has the step .*Punctuation",
                lambda t: setattr(
                    t, "pre_tokenizer", pre_tokenizers.Sequence([pre_tokenizers.Punctuation(), byte_level()])
                ),
            ),
            (
                "looks ahead and another one follows",
                lambda t: setattr(
                    t,
                    "pre_tokenizer",
                    pre_tokenizers.Sequence([split(r"\s+(?!\S)|[\s\S]"), byte_level(True)]),
                ),
            ),
            ("has lstrip", lambda t: t.add_tokens([AddedToken("<m>", lstrip=True)]) and None),
            ("can overlap", lambda t: t.add_tokens([AddedToken("  "), AddedToken("   ")]) and None),
        ],
    )
    def test_tokenizers(self, reason, change):
        refused(reason, change)

    def test_whole_words_that_merging_does_not_make(self):
        tokenizer = trained("gpt2", 300)
        model = json.loads(tokenizer.to_str())["model"]
        vocab = {**model["vocab"], "xyzzy": len(model["vocab"])}
        merges = [tuple(m) for m in model["merges"]]
        whole = Tokenizer(BPE(vocab, merges, ignore_merges=True))
        whole.pre_tokenizer = byte_level(True)
        with pytest.raises(UnsupportedModelError, match=r"whole words that merging does not make.*xyzzy"):
            Case(whole)
        # Where merging makes every token, the flag changes nothing.
        same = Tokenizer(BPE(model["vocab"], merges, ignore_merges=True))
        same.pre_tokenizer = byte_level(True)
        assert Case(same).canonical([model["vocab"]["a"]])

    def test_no_tokenizer(self):
        trie = TokenByteTrie([Token(0, b"a")], device="cpu")
        with pytest.raises(UnsupportedModelError, match="its tokenizer, a ToyTokenizer, is not one of"):
            canonical_rules(ToyLM([b"a"]), trie)

    def test_another_vocabulary(self):
        tokenizer = trained("gpt2", 300)
        tokens = [Token(t.token_id, b"?" if t.token_id == 5 else bytes(t)) for t in spelled(tokenizer)]
        with pytest.raises(UnsupportedModelError, match="is not the bytes"):
            Case(tokenizer, tokens)


REAL = (
    "An apple a day keeps the doctor away.\n\n\tdef fib(n):   return n if n < 2 else fib(n - 1)\n"
    "Größenwahn, naïveté; 東京は日本の首都です。 Привет, мир! 🍎🍏 https://example.com/a?b=c&d=%20 x\u0301"
    "the the the   aaaaaaaaaaaaaaaaaaaaaa 3.14159265 !'s they're 'tis \u3000 \r\n \n  'LL o'clock ''s\n"
)


def check_real(it: Case, encode) -> None:
    """The text as it is tokenized; and stretches of it, tokenized in two parts, against the definition."""
    state = it.rules.start
    for token in encode(REAL):
        place = it.rules._place[token]
        assert it.rules.allowed(state)[place]
        state = it.rules.after(state, token)
    assert it.rules.complete(state)
    rng = np.random.default_rng(7)
    seen = set()
    for _ in range(400):
        start, length = rng.integers(len(REAL)), rng.integers(1, 12)
        text = REAL[start : start + length]
        cut = rng.integers(len(text) + 1)
        ids = [*encode(text[:cut]), *encode(text[cut:])]
        state = it.rules.read(ids)
        canonical = it.text(ids) is not None and encode(it.text(ids)) == ids
        assert (state is not None and it.rules.complete(state)) == canonical, (text[:cut], text[cut:])
        seen.add(canonical)
    assert seen == {True, False}


class TestRealTokenizers:
    @pytest.mark.real_model
    def test_smollm2(self):
        from transformers import AutoTokenizer

        from genlm.bytes.models import default_model_path

        tokenizer = AutoTokenizer.from_pretrained(default_model_path(progress=False), local_files_only=True)
        it = Case(tokenizer.backend_tokenizer, decode_vocab(tokenizer)[0])
        check_real(it, lambda text: tokenizer.encode(text, add_special_tokens=False))

    def test_sentencepiece(self):
        """Mistral's first tokenizer, its merges taken from its scores; the definition is SentencePiece's."""
        from sentencepiece import SentencePieceProcessor

        data = (files("mistral_common") / "data/tokenizer.model.v1").read_bytes()
        model = SentencePieceProcessor(model_proto=data)
        pieces = [model.id_to_piece(i) for i in range(model.vocab_size())]
        vocab = {piece: i for i, piece in enumerate(pieces)}
        merges = [
            (model.get_score(i), piece[:k], piece[k:])
            for i, piece in enumerate(pieces)
            for k in range(1, len(piece))
            if not (model.is_byte(i) or model.is_control(i) or model.is_unknown(i))
            and {piece[:k], piece[k:]} <= vocab.keys()
        ]
        merges.sort(key=lambda m: -m[0])
        tokenizer = Tokenizer(
            BPE(vocab, [m[1:] for m in merges], byte_fallback=True, unk_token="<unk>", fuse_unk=True)
        )
        tokenizer.normalizer, _ = SENTENCEPIECE["llama2"]
        specials = [AddedToken(t, normalized=False, special=True) for t in ("<unk>", "<s>", "</s>")]
        tokenizer.add_special_tokens(specials)
        check_real(Case(tokenizer), model.encode)


def test_what_is_allowed_is_shared_and_cannot_be_written_to():
    trie = TokenByteTrie([Token(0, b"a"), Token(1, b"b"), Token(2, b"ab")], device="cpu")
    tokenizer = Tokenizer(BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rules = canonical_rules(SimpleNamespace(tokenizer=tokenizer), trie)
    found = rules.allowed(rules.start)
    assert found is rules.allowed(rules.start)
    with pytest.raises(ValueError, match="read-only"):
        found[0] = False
