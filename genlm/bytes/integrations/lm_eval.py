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

import logging
import math
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from functools import cache, cached_property
from itertools import islice
from typing import Any, TypeVar

from genlm.bytes.api import ByteLM
from genlm.bytes.api.async_ensemble import AsyncEnsemble
from genlm.bytes.byte_lm.context_limits import longest_context
from genlm.bytes.errors import ImpossibleByteError, InvalidValueError, bad_value, check_names, optional
from genlm.bytes.integrations.lm_eval_chat import Chats
from genlm.bytes.integrations.lm_eval_context import Dropped, Shortener
from genlm.bytes.integrations.lm_eval_ensemble import EveryChat, EveryShortener
from genlm.bytes.integrations.lm_eval_model import KNOWN, check_beginning, context_limit, load
from genlm.bytes.integrations.lm_eval_options import generation_options
from genlm.bytes.prompt.prompt import as_bytes
from genlm.bytes.score.scorer import Scorer
from genlm.bytes.score.window import LEAST, Window
from genlm.bytes.trie import TokenByteTrie
from genlm.bytes.util.gather import gather

__all__ = ["NAME", "Answers", "load", "main", "model_class", "register"]

NAME = "genlm-bytes"
MAX_NEW_TOKENS = 256
"""What the harness takes where a task says nothing."""

BYTES_A_TOKEN = 4
"""Of English; by it the length of what an ensemble writes follows from a task's tokens."""

AT_ONCE = 32
"""Requests that are worked at the same time, as many as texts are scored."""

logger = logging.getLogger(__name__)
T = TypeVar("T")


class Answers:
    """What the harness asks of a model, answered by a `ByteLM`.

    A context longer than the model reads loses its oldest tokens; one that the model cannot read makes its
    own answer impossible. Neither ends the evaluation, and a warning tells of both.

    Args:
        window: see `ByteLM.score`.
        max_gen_toks: new tokens where a task says nothing.
        max_length: the most tokens of a context; None for what the model reads.
    """

    def __init__(
        self,
        lm: ByteLM,
        window: int | None = None,
        max_gen_toks: int = MAX_NEW_TOKENS,
        max_length: int | None = None,
    ) -> None:
        if window is not None and max_length is not None and window > max_length:
            raise bad_value("window", window, f"must be at most `max_length`, {max_length} tokens")
        self.lm = lm
        self.window = max_length if window is None else window
        self.max_gen_toks = max_gen_toks
        together = lm.asynchronous
        self.together = together if isinstance(together, AsyncEnsemble) else None
        self.chats: Any = EveryChat(self.together) if self.together else Chats(lm.llm, lambda: self._trie)
        self._max_length = max_length

    @cached_property
    def max_length(self) -> int | None:
        """The most tokens of a context; None where neither the model nor the user says."""
        beam: Any = self.lm.beam()
        beams = beam.members if self.together else [beam]
        longest = [longest_context(one.states[0].lm_state) for one in beams]
        least = min((tokens for tokens in longest if tokens is not None), default=None)
        limit = context_limit(least, self._max_length, LEAST)
        for one in beams:
            Window.of(one, self.window, None)  # what is wrong with it is said before anything is asked
        return limit

    def loglikelihoods(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        """Of each continuation after its context: the natural log-probability, and whether it is greedy.

        Greedy means that each of its bytes is the likeliest there. A continuation that the model cannot
        write has minus infinity.
        """
        dropped = Dropped(self.max_length)
        scorer = Scorer(self.lm.asynchronous._begin, window=self.window, on_impossible="inf")
        found = self._at_once(self._likelihood(scorer, *pair, dropped) for pair in pairs)
        dropped.say(len(pairs))
        return found

    async def _likelihood(
        self, scorer: Scorer, context: str, text: str, dropped: Dropped
    ) -> tuple[float, bool]:
        prompt = self._prompt(context)
        told = self._readable(as_bytes, "continuation", text)
        if prompt is None or told is None:
            return -math.inf, False
        shorter = self._shortener.for_likelihood(prompt, told)
        try:
            score, greedy, after = await scorer.likeliest(told, shorter)
        except ImpossibleByteError as error:
            _unreadable(error)
            return -math.inf, False
        dropped.note(self._shortener.forgotten(prompt, after))
        return score.logprob, greedy

    def rolling(self, texts: Sequence[str]) -> list[float]:
        """The natural log-probability of each document, read through a sliding window."""
        scores: Any = self.lm.score(list(texts), window=self.window, on_impossible="inf")
        return [score.logprob for score in scores]

    def generate(self, requests: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
        """The continuation of each context, up to what ends it.

        Draws are reproducible: their seeds are the task's, or from `random`, which the harness seeds. A
        request that is repeated draws anew.
        """
        options = [generation_options(asked, self.max_gen_toks) for _, asked in requests]
        times = Counter[str]()
        for (context, _), option in zip(requests, options, strict=True):
            self.lm.asynchronous._checked(self._drawn(option))  # what is wrong is said before all else
            if option["temperature"] > 0.0:
                option["seed"] = int(option.get("seed", random.getrandbits(32))) + times[context]
                times[context] += 1
        dropped = Dropped(self.max_length)
        asked = zip(requests, options, strict=True)
        found = self._at_once(self._continuation(context, option, dropped) for (context, _), option in asked)
        dropped.say(len(requests))
        return found

    async def _continuation(self, context: str, options: dict[str, Any], dropped: Dropped) -> str:
        prompt = self._prompt(context)
        if prompt is None:
            return ""
        shorter, room = self._shortener.for_generation(prompt, options["max_tokens"])
        try:
            options = self._drawn({**options, "max_tokens": room})
            found = await self.lm.asynchronous.complete(shorter, **options)
        except ImpossibleByteError as error:
            _unreadable(error)
            return ""
        dropped.note(self._shortener.lost(prompt, shorter))
        return str(found)

    def _drawn(self, options: dict[str, Any]) -> dict[str, Any]:
        """Options as the model takes them: an ensemble, drawn from by bytes, has its length in these."""
        if self.together is None:
            return options
        return {**options, "max_tokens": None, "max_bytes": BYTES_A_TOKEN * options["max_tokens"]}

    def _prompt(self, context: str) -> Any:
        return self._readable(lambda: self._shortener.parse(self.chats.context(context)))

    def _readable(self, question: Callable[..., T], *args: Any) -> T | None:
        """An answer; None where a text is none that can be read."""
        try:
            return question(*args)
        except InvalidValueError as error:
            _unreadable(error)
            return None

    @cached_property
    def _shortener(self) -> Any:
        if self.together:
            return EveryShortener(self.together, self.max_length)
        return Shortener(self.lm.llm, self._trie, self.max_length, self.lm.asynchronous._begins)

    @property
    def _trie(self) -> TokenByteTrie:
        return self.lm.asynchronous._open_trie()

    def _at_once(self, questions: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
        """The answers, in order. Questions are asked together, so that their contexts share forwards."""

        async def answers() -> list[T]:
            found: list[T] = []
            rest = iter(questions)
            while some := list(islice(rest, AT_ONCE)):
                found += await gather(some)
            return found

        return self.lm.run(answers())


def _unreadable(error: Exception) -> None:
    logger.warning("a context cannot be read, and what follows it counts as impossible: %s", error)


@cache
def model_class() -> Any:
    """The subclass of the harness's `LM`; also to be had as `GenlmBytesLM` of this module.

    Raises:
        MissingDependencyError: the harness is not installed.
    """
    LM: Any = optional("lm_eval.api.model", "The model for the harness", "'genlm-bytes[lm-eval]'").LM

    class GenlmBytesLM(LM):  # type: ignore[misc, valid-type, unused-ignore]
        """`--model genlm-bytes`. Arguments as for `load` and `Answers`; or `lm`, a `ByteLM`, from Python.

        `batch_size` and `max_batch_size`, which the harness always gives, decide nothing: requests are worked
        32 at a time, and their contexts share forwards.
        """

        def __init__(
            self,
            pretrained: str | Sequence[str | None] | None = None,
            *,
            lm: ByteLM | None = None,
            window: int | None = None,
            max_length: int | None = None,
            max_gen_toks: int = MAX_NEW_TOKENS,
            add_bos_token: bool | None = None,
            batch_size: Any = None,
            max_batch_size: Any = None,
            **options: Any,
        ) -> None:
            super().__init__()
            check_names(options, KNOWN)
            lm = load(pretrained, **options) if lm is None else lm
            check_beginning(lm.llm, add_bos_token)
            self.answers = Answers(lm, window, max_gen_toks, max_length)
            _ = self.answers.max_length  # checked
            named = [pretrained] if isinstance(pretrained, str) else pretrained or [NAME]
            self.name = "+".join(str(name or NAME) for name in named).replace("/", "__")

        @property
        def max_length(self) -> int | None:
            return self.answers.max_length

        @property
        def tokenizer_name(self) -> str:
            return str(self.answers.chats.tokenizer_name or self.name)

        def chat_template(self, chat_template: bool | str = False) -> str | None:
            return self.answers.chats.template(chat_template) if chat_template else None

        def apply_chat_template(
            self, chat_history: Sequence[Mapping[str, str]], add_generation_prompt: bool = True
        ) -> str:
            found: str = self.answers.chats.render(chat_history, add_generation_prompt)
            return found

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
