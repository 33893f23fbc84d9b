"""The backend of GGUF models: what is asked for at a moment is one batch of llama.cpp over a tree.

A forward costs 5 ms and each context 2.6 ms more (SmolLM2-135M in Q4_1, two cores, 232 tokens before). With
quantized weights, on a CPU, a tree gives what plain decoding gives to the last bit, whatever shares the batch
and whatever has been given up; with weights in float32 or float16, to round-off. Against the weights in
float32 the figures of quantized ones differ, since llama.cpp quantizes activations too: docs/api/backends.md.

**Memory.** The KV cache begins with 1,024 cells and grows to `n_ctx`; what does not fit is given up, the
least recently run first, and run again when it is asked for (`sequences.py`).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float32

from genlm.bytes.backends.hf_tree.schedule import split_batch
from genlm.bytes.backends.llama_cpp.options import LlamaCppOptions
from genlm.bytes.backends.llama_cpp.sequences import SequenceTree
from genlm.bytes.backends.llama_cpp.session import NoRoomError, Session
from genlm.bytes.backends.llama_cpp.tokenizer import LlamaTokenizer
from genlm.bytes.contexts.backend import Backend, Outcome, Statistics
from genlm.bytes.contexts.tree import ContextNode
from genlm.bytes.errors import ModelOutputError, bad_value

__all__ = ["LlamaCppBackend"]

_Logps = Float32[np.ndarray, " logits"]


class LlamaCppBackend(Backend):
    """A GGUF model.

    Args:
        session: the model that llama.cpp has loaded.
        options: those that it was loaded with.

    Attributes:
        session: the model.
        sequences: which contexts have cells.
    """

    normalizes = True

    def __init__(self, session: Session, options: LlamaCppOptions) -> None:
        self.session = session
        self.tokenizer = LlamaTokenizer(session)
        self.byte_vocab = self.tokenizer.byte_vocab()
        self.max_length = min(session.n_cells, session.n_trained or session.n_cells)
        self._most_contexts = max(1, (options.n_seq_max - 1) // 2)
        self.sequences = SequenceTree(session, options.n_seq_max - 1, session.n_cells, session.cells)
        self._forwards = self._tokens_run = self._tokens_reused = 0

    def check(self, context: ContextNode) -> None:
        """Refuse a context that is empty, longer than can be read, or has an unknown token."""
        size = self.session.n_vocab
        if context.depth == 0:
            raise bad_value("token_ids", [], "the model needs at least one token", "Start from a BOS token.")
        if context.token >= size:
            raise bad_value("token_ids", context.token, f"this model's tokens are 0..{size - 1}")
        if context.depth > self.session.n_cells < self.session.n_trained:
            rule = f"the KV cache has {self.session.n_cells} cells, one for each token"
            way = f"Load the model with a larger `n_ctx`; it was trained on {self.session.n_trained} tokens."
            raise bad_value("token_ids", f"{context.depth} tokens", rule, way)
        super().check(context)

    def split(self, contexts: list[ContextNode]) -> Iterable[list[ContextNode]]:
        """Parts that fit into the sequences and cells."""
        # One cell more for each that is run beside its own (`sequences.py`).
        return split_batch(contexts, self._most_contexts, self.session.n_cells - self._most_contexts)

    def adapter(self, lora_name: str | None) -> object:
        """The adapter that has been loaded under a name."""
        return self.session.adapter(lora_name)

    def forget(self) -> None:
        """Empty the KV cache. Its memory stays."""
        self.session.clear()
        self.sequences.clear()

    def statistics(self, own: Statistics) -> Statistics:
        """Forwards and tokens as llama.cpp saw them. `slots` are cells in use; `cache_bytes` counts all."""
        return Statistics(
            self._forwards,
            self._tokens_run,
            self._tokens_reused,
            len(self.sequences.children),
            self.session.cells * self.session.cell_bytes + own.cache_bytes,
            self.sequences.evictions,
        )

    # -- evaluation -------------------------------------------------------------------------------------

    def evaluate(self, contexts: list[ContextNode]) -> list[Outcome]:
        """The log-probabilities after each context, running what is missing on the way to them."""
        self.session.activate(contexts[0].tree.lora_name)
        try:
            found = self._run(contexts)
        except NoRoomError:  # for some reason that is not foreseen: all is forgotten now
            found = self._run(contexts)
        if any(_undefined(row) for row in found.values()):
            self.forget()  # what is undefined passes every mask (0 x nan), so it may be another's
            for context in contexts if len(contexts) > 1 else ():
                found |= self._run([context])
                if _undefined(found[context]):
                    self.forget()
        return [self._gave_nan(c) if _undefined(row := found[c]) else row for c in contexts]

    def _run(self, contexts: list[ContextNode]) -> dict[ContextNode, _Logps]:
        found: dict[ContextNode, _Logps] = {}
        try:
            request = self.sequences.begin(contexts)
            for first in range(0, len(request.runs), self.session.n_batch):
                part = request.runs[first : first + self.session.n_batch]
                logits = self.session.run(part)
                self._forwards += 1
                for run, row in zip((run for run in part if run.wanted), logits, strict=True):
                    found[run.node] = _normalized(run.node, row)
        except BaseException:
            self.forget()  # what has been run of it, nobody knows
            raise
        self.sequences.commit(request)
        self._tokens_run += len(request.runs)
        self._tokens_reused += request.reused
        return found

    def _gave_nan(self, context: ContextNode) -> ModelOutputError:
        return ModelOutputError(
            f"{self.session.path.name} gave nan or infinite logits after {context.depth} tokens, the last of "
            f"them {context.token}: they must be finite. The file may be damaged: fetch it again."
        )


def _normalized(node: ContextNode, logits: _Logps) -> _Logps:
    most = np.float64(logits.max())
    node.log_normalizer = float(most + np.log(np.exp(logits - np.float32(most)).sum(dtype=np.float64)))
    # A copy, since the logits are llama.cpp's, and rounded once.
    row: _Logps = (logits - np.float64(node.log_normalizer)).astype(np.float32)
    return row


def _undefined(row: _Logps) -> bool:
    """Whether a log-softmax found no numbers; then all of its row is nan."""
    return bool(np.isnan(row[0]))
