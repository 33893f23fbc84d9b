"""From any model to its tokens as bytes, once per model; and one trie per vocabulary.

A model is anything with the interface of `genlm.backend`'s `AsyncLM`. Its `byte_vocab` may have
duplicate spellings, holes (ids that no entry has), empty byte strings, and more or fewer entries than
the model has logits; its tokenizer may have no beginning-of-sequence token. What the rest of the
library needs to know about that is answered here.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from genlm.bytes.errors import bad_type, bad_value
from genlm.bytes.trie.service import AsyncTokenByteTrie

if TYPE_CHECKING:
    from genlm.backend.tokenization import Token

__all__ = [
    "byte_vocab",
    "check_token_ids",
    "end_strings",
    "logits_count",
    "shared_trie",
    "spell",
    "start_context",
    "text_config",
]

_logger = logging.getLogger(__name__)

_Key = tuple[frozenset[bytes], tuple[tuple[str, Any], ...]]
_tries: weakref.WeakKeyDictionary[Any, dict[_Key, AsyncTokenByteTrie]] = weakref.WeakKeyDictionary()


def byte_vocab(llm: Any) -> Sequence[Token]:
    """The model's tokens."""
    vocab: Sequence[Token] | None = getattr(llm, "byte_vocab", None)
    if vocab is None:
        raise bad_type(
            "llm",
            llm,
            "must be a model with a `byte_vocab`, a `tokenizer` and `next_token_logprobs`",
            "Load one with genlm.backend.load_model_by_name(name).",
        )
    return vocab


def shared_trie(
    llm: Any, eos_byte_strings: Iterable[bytes], trie_opts: Mapping[str, Any] | None
) -> AsyncTokenByteTrie:
    """The trie of the model's vocabulary with these options: the same object for the same question.

    Tries are kept as long as their model lives. Options that cannot be compared build a new one.
    """
    opts = {"eos_byte_strings": frozenset(eos_byte_strings), **(trie_opts or {})}
    vocab = byte_vocab(llm)
    try:
        known = _tries.setdefault(llm, {})
        key = (
            frozenset(opts["eos_byte_strings"] or ()),
            tuple(sorted((k, _hashable(v)) for k, v in opts.items() if k != "eos_byte_strings")),
        )
        trie = known.get(key)
    except TypeError:  # the model cannot be weakly referenced, or an option cannot be compared
        return AsyncTokenByteTrie.from_vocab(vocab, **opts)
    if trie is None or not _spells(trie, vocab):
        trie = known[key] = AsyncTokenByteTrie.from_vocab(vocab, **opts)
    return trie


def _spells(trie: AsyncTokenByteTrie, vocab: Sequence[Token]) -> bool:
    """Whether a kept trie still belongs to this vocabulary: its list can be replaced under a model."""
    decode = trie.trie.decode
    return len(decode) == len(vocab) and (decode[0] is vocab[0] and decode[-1] is vocab[-1])


def _hashable(value: Any) -> Any:
    if isinstance(value, str | bytes | int | None):
        return (type(value).__name__, value)
    return ("set", frozenset(value))


def start_context(llm: Any) -> list[int]:
    """Where a text starts: after the beginning-of-sequence token if the tokenizer has one.

    A tokenizer without one starts after its end-of-sequence token, which is what separates documents
    in the training of such models (Qwen, GPT-NeoX); one with neither after what the model's configuration
    names; or, where that names nothing, from the empty context.
    """
    sources = (getattr(llm, "tokenizer", None), text_config(llm))
    for source, name in product(sources, ("bos_token_id", "eos_token_id")):
        token_id = getattr(source, name, None)
        if isinstance(token_id, list | tuple):
            token_id = token_id[0] if token_id else None
        if token_id is not None:
            return [int(token_id)]
    return []


def text_config(llm: Any) -> Any:
    """The configuration of a Hugging Face model's text part; None of other models."""
    config: Any = getattr(getattr(llm, "model", None), "config", None)
    return config.get_text_config(decoder=True) if hasattr(type(config), "get_text_config") else config


def logits_count(llm: Any) -> int | None:
    """How many logits the model gives a token, if its configuration says; ids from there on do not exist.

    Tokenizers may have more tokens than the model was built for. Such a token has probability zero
    everywhere: no text is read by it, and a context that names it is refused.
    """
    size = getattr(text_config(llm), "vocab_size", None)
    return size if isinstance(size, int) and not isinstance(size, bool) else None


def end_strings(llm: Any) -> set[bytes]:
    """The spellings of the tokens that end a sequence: the tokenizer's, and those that generating stops at.

    The latter are in the model's generation settings, wherever its backend keeps them; chat models often
    name a second token there.
    """
    ids: set[int] = set()
    for source in _saying_ends(llm):
        said = source.get("eos_token_id") if isinstance(source, Mapping) else source
        said = said if isinstance(said, list | tuple | set | frozenset) else [said]
        ids.update(i.__index__() for i in said if hasattr(i, "__index__"))
    known = {bytes(token) for token in byte_vocab(llm) if token.token_id in ids}
    return known - {b""}


def _saying_ends(llm: Any) -> Iterator[Any]:
    """What says which tokens end a sequence: ids, or settings with them; None where it says nothing."""
    tokenizer, model = getattr(llm, "tokenizer", None), getattr(llm, "model", None)
    yield getattr(tokenizer, "eos_token_id", None)
    yield getattr(tokenizer, "eos_token_ids", None)  # of mlx-lm
    yield getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    # vLLM: an `LLM`, which holds an engine, which holds the configuration. SGLang: a scheduler.
    engine = getattr(getattr(llm, "llm_engine", None), "llm_engine", None)
    configs = [
        getattr(engine, "model_config", None),
        getattr(getattr(engine, "vllm_config", None), "model_config", None),
        getattr(model, "model_config", None),
    ]
    for config in configs:
        yield getattr(config, "hf_eos_token_id", None)
        yield getattr(getattr(config, "hf_generation_config", None), "eos_token_id", None)
        read = getattr(config, "try_get_generation_config", None)
        if callable(read):
            try:
                yield read()
            except Exception as error:  # it reads files, and may ask a hub
                _logger.warning("the model's generation settings could not be read: %s", error)


def spell(llm: Any, token_ids: Iterable[int]) -> list[bytes]:
    """The byte string of each token id; `b"?"` for an id without a token."""
    vocab, ids = byte_vocab(llm), list(token_ids)
    if all(i < len(vocab) and getattr(vocab[i], "token_id", i) == i for i in ids):
        return [bytes(vocab[i]) for i in ids]
    wanted = set(ids)
    found = {token.token_id: bytes(token) for token in vocab if token.token_id in wanted}
    return [found.get(i, b"?") for i in ids]


def check_token_ids(argument: str, ids: Sequence[int]) -> list[int]:
    """A context as a list of token ids, or an error that names the entry that is not one."""
    if isinstance(ids, str | bytes):
        raise bad_type(argument, ids, "must be a list of token ids", "Tokenize text first.")
    checked = []
    for i, token_id in enumerate(ids):
        try:
            checked.append(token_id.__index__())
        except (AttributeError, TypeError):  # a class and an array have the method too
            raise bad_type(f"{argument}[{i}]", token_id, "must be a token id, an integer") from None
        if checked[-1] < 0:
            raise bad_value(f"{argument}[{i}]", token_id, "must be a token id, zero or more")
    return checked
