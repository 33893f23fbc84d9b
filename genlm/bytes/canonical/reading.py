"""What a tokenizer does, read from its own description; or why it cannot be followed.

Understood are byte-pair encodings of the `tokenizers` library:

| | symbols | pre-tokenizers | normalizers |
|---|---|---|---|
| byte-level (GPT-2, Llama 3, Qwen, SmolLM, tekken) | bytes | `ByteLevel`, `Split`, `Digits` | none, NFC |
| SentencePiece (Llama 2, Mistral) | characters, then bytes | none, `Metaspace` | `▁` for spaces |

Everything else is refused with its reason: a test that is right most of the time would make
probabilities wrong without a word.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from genlm.bytes.canonical.automaton import Automaton
from genlm.bytes.canonical.fallback import MARKED, PIECE, PiecesAndBytes
from genlm.bytes.canonical.merges import Merges, merge_run
from genlm.bytes.canonical.pre_tokens import pre_tokens
from genlm.bytes.errors import UnsupportedModelError

__all__ = ["Reading", "describe", "read_tokenizer"]

Json = dict[str, Any]

# What `ByteLevel(use_regex=True)` cuts by: GPT-2's expression.
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_WHOLE = r"[\s\S]+"
_DIGITS = {True: r"\p{N}|\P{N}+", False: r"\p{N}+|\P{N}+"}
_MARK = "▁"


@dataclass(frozen=True)
class Reading:
    """A tokenizer taken apart. Lists follow the vocabulary in the caller's order.

    Attributes:
        symbols: each token's initial symbols; empty if no text has the token.
        own: the symbol each token is, or -1.
        merges: `(left, right) -> (rank, merged)`.
        rules: where tokens may stand, apart from the merges.
        later: the number of the rules' start after an added token inside a text.
        scanned: how the rules read each token.
        composed: whether texts are brought into Unicode's normal form C first.
        added: the bytes of the tokens that are cut out of a text before anything else, by position.
    """

    symbols: list[list[int]]
    own: list[int]
    merges: Merges
    rules: Automaton
    later: int
    scanned: list[bytes]
    added: dict[int, bytes]
    composed: bool = False


def refuse(reason: str) -> NoReturn:
    """Raise the error that says why."""
    raise UnsupportedModelError(
        f"canonical tokenizations cannot be told for this model: {reason}. Use a beam over all tokenizations."
    )


def describe(llm: Any) -> Json:
    """The model's tokenizer as the description it is stored as."""
    tokenizer = getattr(llm, "tokenizer", None)
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    to_str = getattr(backend, "to_str", None)
    if to_str is None:
        refuse(
            f"its tokenizer, a {type(tokenizer).__name__}, is not one of the `tokenizers` library, and what "
            "it does cannot be read from it"
        )
    description: Json = json.loads(to_str())
    return description


def read_tokenizer(tokenizer: Json, ids: Sequence[int], spellings: Sequence[bytes]) -> Reading:
    """Take a tokenizer apart."""
    model = tokenizer["model"]
    _check_model(model)
    added = _added(tokenizer, ids, spellings)
    names = {i: name for name, i in model["vocab"].items()}
    texts = [None if p in added else names.get(i) for p, i in enumerate(ids)]
    merges = _merges(model)
    if model.get("byte_fallback"):
        return _sentencepiece(tokenizer, texts, spellings, merges, added)
    return _byte_level(tokenizer, texts, spellings, merges, added)


def _check_model(model: Json) -> None:
    kind = model.get("type")
    if kind != "BPE":
        refuse(f"its tokenizer is a {kind} model, not byte-pair encoding")
    if model.get("dropout"):
        refuse("its tokenizer drops merges at random")
    for affix in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(affix):
            refuse(f"its tokenizer has a {affix.replace('_', ' ')}")


def _merges(model: Json) -> Merges:
    vocab = model["vocab"]
    pairs = [tuple(m.split(" ", 1)) if isinstance(m, str) else tuple(m) for m in model["merges"]]
    return {(vocab[a], vocab[b]): (rank, vocab[a + b]) for rank, (a, b) in enumerate(pairs)}


def _added(tokenizer: Json, ids: Sequence[int], spellings: Sequence[bytes]) -> dict[int, bytes]:
    """The added tokens of the vocabulary, checked to be cut out of a text wherever they are spelled."""
    tokens = [t for t in tokenizer.get("added_tokens", ()) if t["content"]]
    contents = [t["content"] for t in tokens]
    for token in tokens:
        for flag in ("lstrip", "rstrip", "single_word"):
            if token.get(flag):
                refuse(f"its added token {token['content']!r} has {flag}, which changes the text around it")
        if token.get("normalized") and tokenizer.get("normalizer"):
            refuse(f"its added token {token['content']!r} is looked for in the normalized text")
    if overlap := _overlap(contents):
        refuse("its added tokens {!r} and {!r} can overlap in a text".format(*overlap))
    places = {t["id"]: t["content"].encode() for t in tokens}
    return {p: places[i] for p, i in enumerate(ids) if i in places}


def _overlap(contents: Sequence[str]) -> tuple[str, str] | None:
    """Two strings of which one is inside the other, or ends as the other begins."""
    starts: dict[str, str] = {}
    for content in contents:
        for n in range(1, len(content)):
            starts.setdefault(content[:n], content)
    whole = set(contents)
    for content in contents:
        n = len(content)
        for i in range(n):
            if i and (other := starts.get(content[i:])):
                return content, other
            for j in range(i + 1, n + 1):
                if j - i < n and content[i:j] in whole:
                    return content, content[i:j]
    return None


# -- byte-level ----------------------------------------------------------------------------------------


def _byte_level(
    tokenizer: Json,
    texts: Sequence[str | None],
    spellings: Sequence[bytes],
    merges: Merges,
    added: dict[int, bytes],
) -> Reading:
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    normalizers = _flat(tokenizer.get("normalizer"), "normalizers")
    if any(step["type"] != "NFC" for step in normalizers):
        refuse(f"its tokenizer normalizes text ({_kinds(tokenizer['normalizer'])}), which changes it")
    patterns = _patterns(tokenizer.get("pre_tokenizer"))
    vocab = tokenizer["model"]["vocab"]
    letters = bytes_to_unicode()
    symbols = []
    for text, spelling in zip(texts, spellings, strict=True):
        if text is not None and text != "".join(letters[b] for b in spelling):
            refuse(f"the token {text!r} is not the bytes {spelling!r} that the model's `byte_vocab` says")
        parts = [] if text is None else [vocab.get(letter, -1) for letter in text]
        symbols.append([] if -1 in parts else parts)
    own = [-1 if text is None else vocab[text] for text in texts]
    if tokenizer["model"].get("ignore_merges"):
        _check_whole_words(spellings, symbols, own, merges)
    rules = pre_tokens(tuple(patterns))
    return Reading(symbols, own, merges, rules, rules.start, list(spellings), added, bool(normalizers))


def _check_whole_words(
    spellings: Sequence[bytes], symbols: Sequence[list[int]], own: Sequence[int], merges: Merges
) -> None:
    """`ignore_merges` makes no difference if merging finds every token that is text by itself."""
    for spelling, parts, whole in zip(spellings, symbols, own, strict=True):
        if whole >= 0 and merge_run(parts, merges).result != [whole]:
            try:
                spelling.decode()
            except UnicodeDecodeError:
                continue
            refuse(f"its tokenizer takes whole words that merging does not make, such as {spelling!r}")


def _patterns(pre_tokenizer: Json | None) -> list[str]:
    """The expressions that the pre-tokenizers cut by, the first one outermost."""
    steps = _flat(pre_tokenizer, "pretokenizers")
    if not steps or steps[-1]["type"] != "ByteLevel":
        refuse(f"its pre-tokenizer is {_kinds(pre_tokenizer)}, which does not end in ByteLevel")
    patterns = [_split(step) for step in steps[:-1]]
    if steps[-1].get("add_prefix_space"):
        refuse("its pre-tokenizer puts a space before a text")
    if steps[-1].get("use_regex", True):
        patterns.append(_GPT2)
    return patterns or [_WHOLE]


def _split(step: Json) -> str:
    if step["type"] == "Digits":
        return _DIGITS[bool(step.get("individual_digits"))]
    if step["type"] == "Split":
        source = step["pattern"].get("Regex")
        # Where the expression matches everything, cutting out its matches is cutting between them.
        kept = (step["behavior"], bool(step["invert"])) in {("Isolated", False), ("Removed", True)}
        if source is not None and kept:
            return str(source)
    refuse(f"its pre-tokenizer has the step {json.dumps(step, ensure_ascii=False)}, which is not understood")


def _flat(step: Json | None, inner: str) -> list[Json]:
    if step is None:
        return []
    if step["type"] == "Sequence":
        return [leaf for part in step[inner] for leaf in _flat(part, inner)]
    return [step]


def _kinds(step: Json | None) -> str:
    if step is None:
        return "missing"
    names = [
        leaf["type"] for leaf in _flat(step, "normalizers" if "normalizers" in step else "pretokenizers")
    ]
    return ", ".join(names)


# -- SentencePiece -------------------------------------------------------------------------------------


def _sentencepiece(
    tokenizer: Json,
    texts: Sequence[str | None],
    spellings: Sequence[bytes],
    merges: Merges,
    added: dict[int, bytes],
) -> Reading:
    marked, later = _marking(tokenizer)
    vocab = tokenizer["model"]["vocab"]
    if tokenizer["model"].get("ignore_merges"):
        refuse("its tokenizer takes whole texts that merging does not make")
    byte_of = {f"<0x{b:02X}>": b for b in range(256)}
    if missing := byte_of.keys() - vocab.keys():
        refuse(f"it has no token for some bytes, such as {min(missing)}, and an unknown token in their place")
    symbols, scanned = [], []
    for text, spelling in zip(texts, spellings, strict=True):
        if text in byte_of:
            parts, scan = [vocab[text]], bytes([byte_of[text]])
            expected = scan
            scan = b"" if scan[0] in (PIECE, MARKED) else scan
        else:
            letters = text or ""
            parts = [] if " " in letters else [vocab.get(letter, -1) for letter in letters]
            scan = bytes([MARKED if letters.startswith(_MARK) else PIECE]) if letters else b""
            expected = letters.replace(_MARK, " ").encode()
        if text is not None and spelling != expected:
            refuse(f"the token {text!r} is not the bytes {spelling!r} that the model's `byte_vocab` says")
        symbols.append([] if -1 in parts else parts)
        scanned.append(scan)
    own = [-1 if text is None else vocab[text] for text in texts]
    pieces = {" ", *(name for name in vocab if len(name) == 1)}
    rules = Automaton(PiecesAndBytes(pieces, marked))
    after = rules.number(PiecesAndBytes(pieces, later).start)
    return Reading(symbols, own, merges, rules, after, scanned, added)


def _marking(tokenizer: Json) -> tuple[bool, bool]:
    """Whether a text begins with a mark, and whether one after an added token does."""
    before, replaces = False, False
    for step in _flat(tokenizer.get("normalizer"), "normalizers"):
        if step["type"] == "Prepend" and step["prepend"] == _MARK:
            before = True
        elif step["type"] == "Replace" and step["pattern"] == {"String": " "} and step["content"] == _MARK:
            replaces = True
        else:
            refuse(f"its tokenizer normalizes text ({step['type']}), so that texts are changed")
    after = before
    for step in _flat(tokenizer.get("pre_tokenizer"), "pretokenizers"):
        if step["type"] != "Metaspace" or step.get("split", True) or step["replacement"] != _MARK or before:
            refuse(f"its pre-tokenizer is {_kinds(tokenizer['pre_tokenizer'])}, which is not understood here")
        scheme = step.get("prepend_scheme", "always")
        replaces, before, after = True, scheme != "never", scheme == "always"
    if not replaces:
        refuse("its tokenizer does not write spaces as ▁")
    return before, after
