"""A model's own tokenizer, asked for tokens that spell given bytes. Text stays text.

Three things make a tokenizer's answer another one than the tokens of the text:

- *Spelled special tokens.* A tokenizer turns `<|im_end|>` in a text into the token that ends a turn, so a
  text from anywhere could end its turn and begin one of its own. Here no text becomes a special token: where
  the answer has one, the tokenizer is asked to split it (`split_special_tokens`), and where it will not, the
  text is cut inside the spelling. Who wants special tokens names them by id, or has them parsed by
  `genlm.bytes.prompt.special_tokens`.
- *A dummy prefix.* SentencePiece writes a space before a text (`▁x` for `x`), and so do byte-level
  tokenizers with `add_prefix_space`. The tokens then spell a space that the text has not (`lead`). Whoever
  starts a text reads that space first; inside a text none is written.
- *Normalization.* Where tokens spell something else than the bytes, there is no answer.

A tokenizer is a user's: it may raise, give None, or take other arguments. That too is no answer.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from genlm.bytes.trie.token_trie import TokenByteTrie
from genlm.bytes.vocab import logits_count

__all__ = ["TextEncoder", "text_encoder"]

_encoders: weakref.WeakKeyDictionary[TokenByteTrie, list[tuple[Any, TextEncoder]]]
_encoders = weakref.WeakKeyDictionary()
MOST_KEPT = 4
"""Encoders of one trie: a tokenizer and its copies with other chat templates."""

SEPARATORS = ("\n", "\t", "\x00", "☺")
"""Characters after which a tokenizer is in the middle of a text, and that it joins with nothing."""

PROBES = "axe1A."
"""Texts that show what a tokenizer writes before one; the first that it can spell is taken."""

_BYTE_NAME = re.compile(r"<0x[0-9A-Fa-f]{2}>")


class TextEncoder:
    """The tokens of texts by one tokenizer, as ids of one vocabulary.

    Args:
        llm: the model; without a `tokenizer` that encodes it has no answer to any text.
        trie: the trie of its vocabulary.

    Attributes:
        special: ids that no text becomes: what the tokenizer calls special, and what its chat template writes
            around a turn.
        avoided: these, and ids that the model has no logits for.
        byte_ids: ids of tokens that stand for a byte where nothing else does, `<0x41>`.
        lead: what the tokenizer writes before a text: a space, or nothing.
    """

    def __init__(self, llm: Any, trie: TokenByteTrie) -> None:
        # Not the trie itself, which is the key under which this is kept.
        self._spelling = trie.spelling_of_id
        self._tokenizer: Any = getattr(llm, "tokenizer", None)
        self._encode = _encode_of(self._tokenizer)
        self.special = _special_ids(self._tokenizer) & self._spelling.keys()
        logits = logits_count(llm)
        self.avoided = self.special | {i for i in self._spelling if logits is not None and i >= logits}
        self.byte_ids = _byte_ids(self._tokenizer)
        self._letter = next((c for c in PROBES if self._spelled(c) in (c.encode(), b" " + c.encode())), "a")
        self.lead = b" " if self._spelled(self._letter) == b" " + self._letter.encode() else b""
        self._doubles = not self.lead or self._spelled(" " + self._letter) != b" " + self._letter.encode()
        self._leads_after: dict[int, bytes] = {}
        self._cuts: dict[frozenset[int], re.Pattern[bytes] | None] = {}

    @property
    def exists(self) -> bool:
        """Whether the model has a tokenizer that encodes."""
        return self._encode is not None

    def begins(self, text: bytes) -> bytes:
        """What the tokenizer writes before this text: some write a space only where there is none."""
        return self.lead if self._doubles or not text.startswith(b" ") else b""

    def lead_after(self, token_id: int) -> bytes:
        """What the tokenizer writes before text that stands after a special token.

        One that parses no special tokens (mistral-common) is given such text by itself, as a beginning.
        """
        if self.lead and token_id not in self._leads_after:
            name = self._spelling.get(token_id, b"?").decode("utf-8", "replace")
            ids = self._ask(name + self._letter) or []
            none = ids[:1] == [token_id] and self._spell(ids[1:]) == self._letter.encode()
            self._leads_after[token_id] = b"" if none else self.lead
        return self._leads_after.get(token_id, b"")

    def exact(self, text: bytes, also: frozenset[int] = frozenset(), cut: bool = True) -> list[int] | None:
        """The tokenizer's tokens of a text, if they spell it; None where they do not.

        Args:
            text: the text. Where it begins with what the tokenizer writes before one, it is a beginning.
            also: ids that it must not become besides `avoided`.
            cut: whether it may be cut where it becomes such ids; otherwise there is no answer.
        """
        if self._encode is None:
            return None
        try:
            string = text.decode()
        except UnicodeDecodeError:
            return None
        for ask in self._ways(string):
            ids = ask(string)
            if ids is not None and self._spell(ids) == text:
                if self.avoided.isdisjoint(ids) and also.isdisjoint(ids):
                    return ids
                return self._cut(text, also) if cut else None
        return None

    def closed(self, text: bytes, lead: bytes, also: frozenset[int] = frozenset()) -> list[int] | None:
        """The tokenizer's tokens of a text that stands by itself, even if they spell it otherwise.

        What a tokenizer that normalizes makes of a text is all that its model ever saw of such.

        Args:
            text: the text.
            lead: what the tokenizer writes before it there.
            also: see `exact`.
        """
        ids = self.exact(lead + text, also)
        if ids is None and self._encode is not None:
            try:
                ids = self._without_special(text.decode())
            except UnicodeDecodeError:
                return None
        known = ids is not None and self._spelling.keys() >= set(ids)
        return ids if known and (self.avoided | also).isdisjoint(ids or ()) else None

    def begins_with(self, token_id: int) -> bool:
        """Whether the tokenizer puts this token before a text by itself."""
        encode = getattr(self._tokenizer, "encode", None)
        return encode is not None and (_ids_of(lambda: encode("a")) or [])[:1] == [token_id]

    # -- asking ---------------------------------------------------------------------------------------

    def _ways(self, string: str) -> Iterable[Callable[[str], list[int] | None]]:
        """How to ask, the way that is likely to spell the text first."""
        if self.lead and string.startswith(" "):
            yield lambda s: self._without_special(s[1:])
        if not self.lead or (string.startswith(" ") and not self._doubles):
            yield self._without_special
        if self.lead:
            yield self._inside

    def _without_special(self, string: str) -> list[int] | None:
        """The tokens; special ones split by the tokenizer itself, where it can."""
        ids = self._ask(string)
        if ids is None or self.special.isdisjoint(ids):
            return ids
        split = self._ask(string, split_special_tokens=True)
        self._ask("")  # the setting sticks to fast tokenizers until they are asked without it
        return ids if split is None else split

    def _inside(self, string: str) -> list[int] | None:
        """The tokens of what stands inside a text: those after a character that joins with nothing."""
        for separator in SEPARATORS:
            if string.startswith(separator):
                continue
            ids = self._without_special(separator + string) or []
            begun, at = (self.lead.decode() + separator).encode(), 0
            for n, token_id in enumerate(ids):
                if at == len(begun):
                    return ids[n:]
                at += len(self._spelling.get(token_id, b""))
        return None

    def _cut(self, text: bytes, also: frozenset[int]) -> list[int] | None:
        """The tokens of the pieces of a text that is cut inside everything that spells an avoided token."""
        if also not in self._cuts:
            names = {self._spelling.get(i, b"") for i in self.avoided | also}
            names = {name for name in names if len(name.decode("utf-8", "replace")) > 1}
            joined = b"|".join(map(re.escape, sorted(names)))
            self._cuts[also] = re.compile(b"(?=" + joined + b")") if names else None
        pattern = self._cuts[also]
        if pattern is None:
            return None
        places = [found.start() for found in pattern.finditer(text)]
        places = [p + len(text[p : p + 4].decode("utf-8", "ignore")[:1].encode()) for p in places]
        pieces = [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]
        found: list[int] = []
        for piece in filter(None, pieces):
            string = piece.decode()
            answers = (ask(string) for ask in self._ways(string))
            ids = next((ids for ids in answers if ids is not None and self._spell(ids) == piece), None)
            if ids is None or (self.avoided | also).intersection(ids):
                return None
            found += ids
        return found if places else None

    def _ask(self, string: str, **options: Any) -> list[int] | None:
        encode = self._encode
        return None if encode is None else _ids_of(lambda: encode(string, **options))

    def _spell(self, ids: Iterable[int]) -> bytes:
        return b"".join(self._spelling.get(i, b"\xff") for i in ids)

    def _spelled(self, string: str) -> bytes | None:
        ids = self._ask(string)
        return None if ids is None else self._spell(ids)


def text_encoder(llm: Any, trie: TokenByteTrie) -> TextEncoder:
    """The encoder of a model, made once for each trie and tokenizer."""
    tokenizer = getattr(llm, "tokenizer", None)
    kept = _encoders.get(trie, [])
    for known, encoder in kept:
        if known is tokenizer:
            return encoder
    made = TextEncoder(llm, trie)
    _encoders[trie] = [(tokenizer, made), *kept[: MOST_KEPT - 1]]
    return made


def _encode_of(tokenizer: Any) -> Callable[..., Any] | None:
    encode = getattr(tokenizer, "encode", None)
    if not callable(encode):
        return None

    def with_options(string: str, **options: Any) -> Any:
        return encode(string, add_special_tokens=False, **options)

    return with_options


def _ids_of(ask: Callable[[], Any]) -> list[int] | None:
    """Token ids, whatever a tokenizer gives; None if it gives none."""
    try:
        found = ask()
        found = getattr(found, "ids", found)  # an `Encoding` of the `tokenizers` library
        return [i.__index__() for i in found]
    except Exception:  # a tokenizer may raise anything, and may give anything
        return None


def _special_ids(tokenizer: Any) -> frozenset[int]:
    """The ids of a tokenizer's special tokens, as far as it says."""
    found: set[int] = set()
    added = getattr(tokenizer, "added_tokens_decoder", None)
    if isinstance(added, dict):
        found |= {int(i) for i, token in added.items() if getattr(token, "special", False)}
    for name in ("all_special_ids", "bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id"):
        said = getattr(tokenizer, name, None)
        said = said if isinstance(said, list | tuple | set) else [said]
        found |= {i.__index__() for i in said if hasattr(i, "__index__")}
    return frozenset(found | _turn_markers(tokenizer, added if isinstance(added, dict) else {}))


def _turn_markers(tokenizer: Any, added: Mapping[Any, Any]) -> set[int]:
    """The ids of added tokens that are not called special (`<|User|>` of some models), but mark turns.

    They are those that the chat template writes by itself where nothing is said; white space is none.
    """
    names = {str(token.content): int(i) for i, token in added.items() if not getattr(token, "special", True)}
    if not names or getattr(tokenizer, "chat_template", None) is None:
        return set()
    turns = [{"role": role, "content": "a"} for role in ("user", "assistant", "user")]
    written = ""
    for probe in (turns, turns[:1]):
        try:
            written += tokenizer.apply_chat_template(probe, tokenize=False, add_generation_prompt=True)
        except Exception:  # a template may refuse anything
            continue
    return {i for name, i in names.items() if name in written and not name.isspace()}


def _byte_ids(tokenizer: Any) -> frozenset[int]:
    said = getattr(tokenizer, "byte_token_ids", None)
    if isinstance(said, frozenset):  # ours say so themselves
        return said
    try:
        vocab: dict[str, int] = tokenizer.get_vocab()
        return frozenset(i for name, i in vocab.items() if _BYTE_NAME.fullmatch(name))
    except Exception:  # as above
        return frozenset()
