"""A model for EleutherAI's lm-evaluation-harness: likelihoods of bytes, wherever a prompt ends.

The harness's own models tokenize context and continuation, move spaces from the context's end to the
continuation, and drop as many tokens of the whole as the context alone has. Where a token of the whole
reaches across that place, what is left to be scored is not the continuation. Here both are bytes: the context
is read untouched, and the continuation's bytes are scored over all tokenizations.

The released harness (0.4.13) finds models by its own list, or by registration in the same process. So:

    python -m genlm.bytes.integrations.lm_eval --model genlm-bytes --model_args pretrained=gpt2,K=5 --tasks …

is its command line with this model registered. In Python, `register()`, then
`lm_eval.simple_evaluate(model="genlm-bytes", …)`, or pass an instance of `GenlmBytesLM`.
"""

from __future__ import annotations

import math
from collections.abc import Coroutine, Iterable, Sequence
from functools import cache
from itertools import islice
from typing import Any, TypeVar

import numpy as np

from genlm.bytes.byte_lm import BeamParams
from genlm.bytes.errors import MissingDependencyError, bad_value
from genlm.bytes.front import ByteLM
from genlm.bytes.generate.together import together
from genlm.bytes.score import Score

__all__ = ["NAME", "Answers", "main", "model_class", "register"]

NAME = "genlm-bytes"
MAX_NEW_TOKENS = 256
"""What the harness takes where a task says nothing."""

AT_ONCE = 32
"""Requests that are worked at the same time, as many as texts are scored."""

T = TypeVar("T")


class Answers:
    """What the harness asks of a model, answered by a `ByteLM`.

    Args:
        lm: the model.
        window: see `ByteLM.score`.
        max_gen_toks: new tokens where a task says nothing.
    """

    def __init__(self, lm: ByteLM, window: int | None = None, max_gen_toks: int = MAX_NEW_TOKENS) -> None:
        self.lm = lm
        self.window = window
        self.max_gen_toks = max_gen_toks

    def loglikelihoods(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        """Of each continuation after its context: the natural log-probability, and whether it is greedy.

        Greedy means that each of its bytes is the likeliest there. A continuation that the model cannot
        write has minus infinity.
        """
        if not pairs:
            return []
        contexts, texts = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        scores: Any = self.lm.score(texts, contexts, on_impossible="inf", window=self.window)
        asked = zip(contexts, scores, strict=True)
        greedy = self._at_once(self._is_greedy(context, score) for context, score in asked)
        return [(score.logprob, likeliest) for score, likeliest in zip(scores, greedy, strict=True)]

    async def _is_greedy(self, context: str, score: Score) -> bool:
        """A byte of more than half is the likeliest; of the others the first that is not decides."""
        for at in np.flatnonzero(~(score.logprobs > math.log(0.5))):
            if score.logprobs[at] == -math.inf:
                return False
            found = await self.lm.asynchronous.next(context.encode() + score.text[:at], method="beam")
            if int(np.argmax(found.ps)) != score.text[at]:
                return False
        return True

    def rolling(self, texts: Sequence[str]) -> list[float]:
        """The natural log-probability of each document, read through a sliding window."""
        scores: Any = self.lm.score(list(texts), window=self.window, on_impossible="inf")
        return [score.logprob for score in scores]

    def generate(self, requests: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
        """The continuation of each context, up to what ends it."""
        complete = self.lm.asynchronous.complete
        found = self._at_once(complete(context, **self._options(asked)) for context, asked in requests)
        return [str(completion) for completion in found]

    def _at_once(self, questions: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
        """The answers, in order. Questions are asked together, so that their contexts share forwards."""

        async def answers() -> list[T]:
            found: list[T] = []
            rest = iter(questions)
            while some := list(islice(rest, AT_ONCE)):
                found += await together(some)
            return found

        return self.lm.run(answers())

    def _options(self, asked: dict[str, Any]) -> dict[str, Any]:
        until = asked.get("until") or []
        stops = [until] if isinstance(until, str) else list(until)
        temperature = float(asked.get("temperature") or 0.0) if asked.get("do_sample", True) else 0.0
        found = {
            "stop": [stop for stop in stops if stop],
            "max_tokens": int(asked.get("max_gen_toks") or self.max_gen_toks),
            "temperature": temperature,
        }
        if temperature > 0.0 and asked.get("top_p") is not None:
            found["top_p"] = float(asked["top_p"])
        return found


def load(
    pretrained: str | None = None,
    K: int | None = None,
    prune_threshold: float = 0.0,
    tolerance: float | None = None,
    device: str | None = None,
    dtype: str | None = None,
    backend: str | None = None,
    revision: str | None = None,
) -> ByteLM:
    """The model that `--model_args` describes; without `pretrained` the embedded one."""
    if revision not in (None, "main"):
        raise bad_value("revision", revision, "is not supported", "Download it, and give its folder.")
    name = None if pretrained in (None, "", "default") else str(pretrained)
    params = BeamParams(K=K, prune_threshold=prune_threshold, tolerance=tolerance)
    return ByteLM.from_pretrained(name, params, device=device, dtype=dtype, backend=backend, progress=False)


@cache
def model_class() -> Any:
    """The subclass of the harness's `LM`; also to be had as `GenlmBytesLM` of this module.

    Raises:
        MissingDependencyError: the harness is not installed.
    """
    try:
        from lm_eval.api.model import LM
    except ImportError as error:
        message = 'the harness is not installed: pip install "genlm-bytes[lm-eval]".'
        raise MissingDependencyError(message) from error

    class GenlmBytesLM(LM):  # type: ignore[misc]
        """`--model genlm-bytes`. Arguments as for `load`; or `lm`, a `ByteLM`, from Python."""

        def __init__(
            self,
            pretrained: str | None = None,
            *,
            lm: ByteLM | None = None,
            window: int | None = None,
            max_gen_toks: int = MAX_NEW_TOKENS,
            batch_size: Any = None,
            max_batch_size: Any = None,
            **options: Any,
        ) -> None:
            super().__init__()
            lm = load(pretrained, **options) if lm is None else lm
            self.answers = Answers(lm, window, max_gen_toks)
            self.name = str(pretrained or NAME)

        @property
        def tokenizer_name(self) -> str:
            return self.name

        def loglikelihood(self, requests: Iterable[Any], **_: Any) -> list[tuple[float, bool]]:
            found = self.answers.loglikelihoods([request.args for request in requests])
            return self._kept("loglikelihood", requests, found)

        def loglikelihood_rolling(self, requests: Iterable[Any], **_: Any) -> list[float]:
            found = self.answers.rolling([request.args[0] for request in requests])
            return self._kept("loglikelihood_rolling", requests, found)

        def generate_until(self, requests: Iterable[Any], **_: Any) -> list[str]:
            found = self.answers.generate([request.args for request in requests])
            return self._kept("generate_until", requests, found)

        def _kept(self, kind: str, requests: Iterable[Any], found: list[Any]) -> list[Any]:
            """For the harness's cache of answers."""
            for request, answer in zip(requests, found, strict=True):
                self.cache_hook.add_partial(kind, request.args, answer)
            return found

    return GenlmBytesLM


def __getattr__(name: str) -> Any:
    if name == "GenlmBytesLM":
        return model_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def register() -> None:
    """Make the harness of this process know the model by its name."""
    made = model_class()
    from lm_eval.api.registry import get_model, register_model

    try:
        get_model(NAME)
    except ValueError:
        register_model(NAME)(made)


def main() -> None:
    """The harness's command line, with `--model genlm-bytes`."""
    register()
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()


if __name__ == "__main__":
    main()
