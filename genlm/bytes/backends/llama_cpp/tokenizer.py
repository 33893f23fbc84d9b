"""A GGUF file's tokenizer, with the methods and names of a Hugging Face one that this library asks for.

llama.cpp cuts the text. What it calls *control* is special here: in a text it stands for itself only where
special tokens are parsed. *User-defined* tokens are cut out of any text. *Unused* ones spell nothing.

Beginnings: the file says whether a BOS token is put before a text (`add_bos`), and whether a space is
(`add_space_prefix`); the former is done where special tokens are asked for, the latter always, as the model
was trained. Where a text starts is the business of `vocab.start_context`.

Canonical tokenizations are read from the description of a tokenizer of the `tokenizers` library. A GGUF has
none; transformers makes one from the same file, in seconds (`to_str`). It is taken if it cuts some awkward
texts as llama.cpp does: else canonical tokenizations are refused.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from genlm.bytes.backends.llama_cpp.chat_template import render
from genlm.bytes.backends.llama_cpp.library import library
from genlm.bytes.errors import UnsupportedModelError
from genlm.bytes.token_class import token_class

if TYPE_CHECKING:
    from genlm.backend.tokenization import Token

    from genlm.bytes.backends.llama_cpp.session import Session

__all__ = ["AddedToken", "LlamaTokenizer"]

_UNKNOWN, _UNUSED, _CONTROL, _USER_DEFINED, _BYTE = 1, 2, 8, 16, 32
_LSTRIP, _RSTRIP, _SINGLE_WORD = 128, 256, 512
"""`llama_token_attr`."""

FAMILIES = {
    1: "SentencePiece BPE with byte fallback",
    2: "byte-level BPE",
    4: "SentencePiece Unigram",
    5: "RWKV, the longest token first",
    6: "PLaMo-2",
}
"""`llama_vocab_type`, of those whose tokens say which bytes they spell."""

PROBES = (
    "The  quick\tbrown fox's 3.14159 jumps!?\n\n  over\r\nnaïve Ünïcode, 日本語 and 🙂🙃 123456789",
    "def f(x):\n    return x**2 # it's   \n\n\n'Twas  WE'RE they'll",
    " leading and trailing ",
)
"""Texts on which tokenizers that differ mostly do."""


class AddedToken(NamedTuple):
    """A token that is cut out of a text before anything else; see `tokenizers.AddedToken`."""

    content: str
    special: bool
    lstrip: bool
    rstrip: bool
    single_word: bool


class LlamaTokenizer:
    """The tokenizer of a GGUF file.

    Args:
        session: the loaded model.

    Attributes:
        bos_token_id: the token that texts begin after, or None; likewise `eos_token_id`, `pad_token_id`.
        eos_token_ids: the tokens that end a sequence or a turn.
        added_tokens_decoder: control and user-defined tokens, by id.
        chat_template: the template in jinja, or None. It may be set.
        byte_token_ids: the tokens that stand for a byte where nothing else does.
        fim_token_ids: the tokens for filling in the middle: before the prefix, the suffix and the middle; or
            None.

    Raises:
        UnsupportedModelError: the tokens do not say which bytes they spell.
    """

    def __init__(self, session: Session) -> None:
        self._session, self._vocab = session, session.vocab  # the vocabulary lives as long as the session
        lib = library()
        kind = int(lib.llama_vocab_type(session.vocab))
        if kind not in FAMILIES:
            what = {0: "it has no vocabulary", 3: "WordPiece"}.get(kind, f"kind {kind}")
            raise UnsupportedModelError(
                f"the tokens of {session.path.name} do not say which bytes they spell ({what}). Use a model "
                "with a byte-level or SentencePiece tokenizer."
            )
        self.family = FAMILIES[kind]
        self.name_or_path = str(session.path)
        self._attributes = [int(lib.llama_vocab_get_attr(self._vocab, i)) for i in range(session.n_vocab)]
        self.bos_token_id, self.eos_token_id = self._id("bos"), self._id("eos")
        self.pad_token_id, self.unk_token_id = self._id("pad"), self._unknown()
        self.eos_token_ids = [i for i in range(session.n_vocab) if lib.llama_vocab_is_eog(self._vocab, i)]
        self.byte_token_ids = frozenset(i for i, flags in enumerate(self._attributes) if flags & _BYTE)
        fim = [self._id(f"fim_{part}") for part in ("pre", "suf", "mid")]
        self.fim_token_ids = fim if fim[0] is not None and fim[1] is not None else None
        self.chat_template = session.text("llama_model_chat_template", None)

    def _id(self, name: str) -> int | None:
        found = int(getattr(library(), f"llama_vocab_{name}")(self._vocab))
        return found if found >= 0 else None

    def _unknown(self) -> int | None:
        return next((i for i, flags in enumerate(self._attributes) if flags & _UNKNOWN), None)

    # -- the vocabulary ---------------------------------------------------------------------------------

    def byte_vocab(self) -> list[Token]:
        """The model's tokens as bytes, by id."""
        lib, vocab, make = library(), self._vocab, token_class()
        buffer = ctypes.create_string_buffer(1 << 10)
        tokens = []
        for i, flags in enumerate(self._attributes):
            length = (
                0 if flags & _UNUSED else lib.llama_token_to_piece(vocab, i, buffer, len(buffer), 0, True)
            )
            if length < 0:
                buffer = ctypes.create_string_buffer(-length)
                length = lib.llama_token_to_piece(vocab, i, buffer, len(buffer), 0, True)
            tokens.append(make(i, buffer[:length]))
        return tokens

    @cached_property
    def _names(self) -> list[str]:
        return [self._name(i) for i in range(len(self._attributes))]

    def _name(self, i: int) -> str:
        name: bytes = library().llama_vocab_get_text(self._vocab, i)
        return name.decode("utf-8", "replace")

    def get_vocab(self) -> dict[str, int]:
        """The tokens as the file writes them, with their ids."""
        return {name: i for i, name in enumerate(self._names)}

    def __len__(self) -> int:
        return len(self._attributes)

    @cached_property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """Tokens that are cut out of a text, by id."""
        return {
            i: AddedToken(
                self._name(i),
                bool(flags & (_CONTROL | _UNKNOWN)),
                bool(flags & _LSTRIP),
                bool(flags & _RSTRIP),
                bool(flags & _SINGLE_WORD),
            )
            for i, flags in enumerate(self._attributes)
            if flags & (_CONTROL | _UNKNOWN | _USER_DEFINED)
        }

    @property
    def all_special_ids(self) -> list[int]:
        """The ids of the special tokens."""
        return [i for i, token in self.added_tokens_decoder.items() if token.special]

    @property
    def all_special_tokens(self) -> list[str]:
        """The names of the special tokens."""
        return [self.added_tokens_decoder[i].content for i in self.all_special_ids]

    @property
    def bos_token(self) -> str | None:
        """The name of the token that texts begin after."""
        return None if self.bos_token_id is None else self._name(self.bos_token_id)

    @property
    def eos_token(self) -> str | None:
        """The name of the token that ends a sequence."""
        return None if self.eos_token_id is None else self._name(self.eos_token_id)

    # -- text -------------------------------------------------------------------------------------------

    def encode(
        self, text: str, add_special_tokens: bool = True, split_special_tokens: bool = False
    ) -> list[int]:
        """The tokens of a text.

        Args:
            text: the text.
            add_special_tokens: put the tokens around it that the file says.
            split_special_tokens: cut what spells a special token as text.

        Raises:
            UnicodeEncodeError: lone surrogates.
        """
        data = text.encode()
        lib, most = library(), len(data) + 8
        while True:
            found = (lib.llama_token * most)()
            length = lib.llama_tokenize(
                self._vocab, data, len(data), found, most, add_special_tokens, not split_special_tokens
            )
            if length >= 0:
                return list(found[:length])
            most = -length

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        """The tokens of a text, as `input_ids`."""
        return {"input_ids": self.encode(text, add_special_tokens)}

    def decode(self, token_ids: Iterable[int], skip_special_tokens: bool = False) -> str:
        """The text of some tokens; what is no UTF-8 is replaced."""
        lib, found = library(), bytearray()
        buffer = ctypes.create_string_buffer(1 << 16)
        for i in token_ids:
            length = lib.llama_token_to_piece(self._vocab, i, buffer, len(buffer), 0, not skip_special_tokens)
            found += ctypes.string_at(buffer, max(0, length))
        return found.decode("utf-8", "replace")

    # -- conversations ----------------------------------------------------------------------------------

    def apply_chat_template(
        self,
        conversation: Sequence[Mapping[str, Any]],
        tokenize: bool = True,
        add_generation_prompt: bool = False,
        **variables: Any,
    ) -> Any:
        """A conversation as text, or as tokens.

        Args:
            conversation: messages, each with `role` and `content`.
            tokenize: give token ids.
            add_generation_prompt: go on to where the assistant speaks.
            **variables: for the template.

        Raises:
            ValueError: there is no template.
        """
        if self.chat_template is None:
            raise ValueError("this model's file has no chat template")
        known = {"bos_token": self.bos_token or "", "eos_token": self.eos_token or "", **variables}
        text = render(self.chat_template, conversation, add_generation_prompt, known)
        return self.encode(text, add_special_tokens=False) if tokenize else text

    # -- canonical tokenizations ------------------------------------------------------------------------

    def to_str(self) -> str:
        """The description of the tokenizer that transformers makes of the same file.

        Raises:
            UnsupportedModelError: it makes none, or one that cuts texts otherwise.
        """
        return self._description

    @cached_property
    def _description(self) -> str:
        path, why = self._session.path, "transformers cannot make one of the same file"
        try:
            hf: Any = import_module("transformers")
            made = hf.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
            for text in PROBES:
                if made.encode(text, add_special_tokens=False) != self.encode(text, add_special_tokens=False):
                    why = f"the one that transformers makes of the same file cuts {text[:24]!r} otherwise"
                    break
            else:
                return str(made.backend_tokenizer.to_str())
        except Exception as error:  # it raises all kinds for files that it does not know
            why += f" ({' '.join(str(error).split())[:200]})"
        raise UnsupportedModelError(
            "canonical tokenizations cannot be told for this model: they are read from the description of a "
            f"tokenizer, and {why}. Use a beam over all tokenizations."
        )
