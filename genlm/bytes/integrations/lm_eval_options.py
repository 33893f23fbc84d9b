"""What a task of the evaluation harness asks of a generation, as options of `ByteLM.complete`.

Tasks write these options for `transformers.generate`, and the harness knows four names of one length. Each is
honoured, or it is said that it is not: an option that is not known is an error before anything is computed,
with what is known and the way out. None means that an option is not given, so `--gen_kwargs name=None` takes
back what a task has set.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from genlm.bytes.errors import bad_type, bad_value
from genlm.bytes.generate.sampling import PROCESSORS
from genlm.bytes.options import DRAWING, number

__all__ = ["generation_options"]

logger = logging.getLogger(__name__)

LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""Names of the most new tokens; of several the first counts, as in the harness."""

NOTHING_ASKED: dict[str, tuple[Any, ...]] = {
    "num_beams": (1,),
    "num_return_sequences": (1,),
    "n": (1,),
    "best_of": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "length_penalty": (1,),
    "no_repeat_ngram_size": (0,),
    "typical_p": (1,),
    "early_stopping": (False, True),
    "use_cache": (False, True),
    "skip_special_tokens": (False, True),
}
"""Options of `transformers.generate` that decoding here has not, with the values that ask for nothing. The
last three never ask for anything: there is one beam, there is a cache, and special tokens are no text."""


def generation_options(asked: Mapping[str, Any], default_tokens: int) -> dict[str, Any]:
    """Options for `complete`: lengths, processors, `temperature`, and what only drawing has.

    As in the harness, `do_sample=False` is greedy whatever the temperature; without `do_sample` a temperature
    above 0 draws; `do_sample=True` without a temperature draws at 1.

    Raises:
        ValueError: an option that is not known, or a value that cannot be honoured.
        TypeError: `until` is neither a string nor a list of them.

    Examples:
        >>> generation_options({"until": "Q:", "max_new_tokens": 5, "do_sample": False, "top_p": 1.0}, 256)
        {'stop': ['Q:'], 'max_tokens': 5, 'temperature': 0.0}
    """
    given = {name: value for name, value in asked.items() if value is not None}
    _check_known(given)
    found: dict[str, Any] = {"stop": _stops(given.get("until")), "max_tokens": _length(given, default_tokens)}
    found |= {name: given[name] for name in PROCESSORS if name in given}
    temperature = _temperature(given)
    drawing = {name: given[name] for name in DRAWING if name in given and not _is_off(name, given[name])}
    if temperature > 0.0:
        return {**found, "temperature": temperature, **drawing}
    useless = sorted(set(drawing) - {"seed"})
    if useless:
        _warn("do nothing without do_sample=True or a temperature", useless)
    return {**found, "temperature": 0.0}


def _check_known(given: Mapping[str, Any]) -> None:
    known = ("until", *LENGTHS, "do_sample", "temperature", *PROCESSORS, *DRAWING)
    for name, value in given.items():
        if name in NOTHING_ASKED:
            if value not in NOTHING_ASKED[name]:
                way = f"--gen_kwargs {name}={NOTHING_ASKED[name][0]} takes it back."
                raise bad_value(name, value, "decoding here has no such option", way)
        elif name not in known:
            way = f"Known are {', '.join(known)}. --gen_kwargs {name}=None takes it back."
            raise bad_value(name, value, "is no option of a generation that can be honoured", way)


def _stops(until: Any) -> list[str]:
    stops = [until] if isinstance(until, str) else [] if until is None else until
    if not isinstance(stops, list | tuple) or not all(isinstance(stop, str) for stop in stops):
        raise bad_type("until", until, "must be a string or a list of strings")
    return [stop for stop in stops if stop]


def _length(given: Mapping[str, Any], default: int) -> int:
    lengths = {name: given[name] for name in LENGTHS if name in given}
    if not lengths:
        return default
    name, value = next(iter(lengths.items()))
    if len(set(lengths.values())) > 1:
        _warn(f"give different lengths; {name} counts", sorted(lengths))
    try:
        count = int(value)
    except (TypeError, ValueError):
        raise bad_type(name, value, "must be a number of tokens") from None
    if count < 1:
        raise bad_value(name, value, "must be at least 1 token")
    return count


def _temperature(given: Mapping[str, Any]) -> float:
    draws = given.get("do_sample")
    asked = number("temperature", given.get("temperature", 1.0 if draws else 0.0)) or 0.0
    if draws is None or (draws and asked > 0.0):
        return asked
    if draws:
        _warn("asks for drawing and a temperature of 0 for none: the likeliest is taken", ["do_sample"])
    elif asked > 0.0:
        _warn("is 0 where do_sample=False", ["temperature"])
    return 0.0


def _is_off(name: str, value: Any) -> bool:
    """Whether a truncation truncates nothing: 0 and -1 as `top_k`, 1 as `top_p`, 0 as `min_p`."""
    return value in {"top_k": (0, -1), "top_p": (1,), "min_p": (0,)}.get(name, ())


_said: set[tuple[str, ...]] = set()


def _warn(rule: str, names: list[str]) -> None:
    """Say it once: every request of a task has the same options."""
    if (rule, *names) not in _said:
        _said.add((rule, *names))
        logger.warning("%s %s.", ", ".join(f"`{name}`" for name in names), rule)
