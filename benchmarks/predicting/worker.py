"""Cases of the predicting benchmark: words after a context, and after each letter that is typed."""

from __future__ import annotations

import time
from typing import Any

from common.worker import Clock, case, serve
from genlm.backend import load_model_by_name
from transformers.utils import logging

from genlm.bytes import ByteLM
from genlm.bytes.engine import adopt

logging.set_verbosity_error()
logging.disable_progress_bar()

state: dict[str, ByteLM] = {}


@case
def load(clock: Clock, folder: str) -> None:
    opts = {"hf_opts": {"device_map": "cpu", "torch_dtype": "float32"}}
    state["lm"] = ByteLM(load_model_by_name(folder, backend="hf", llm_opts=opts))
    state["lm"].predict_words("All code once, ")


@case
def forward(clock: Clock, text: str) -> None:
    """One more token after a context that has been read."""
    lm = state["lm"]
    lm.forget()
    beam = lm.beam(text, method="tokenize")
    heaviest = beam.states[0].lm_state
    for token in range(1000, 1009):
        with clock:
            lm.run((heaviest << token).logp_next())


@case
def type_on(clock: Clock, text: str, start: int, n: int) -> dict[str, Any]:
    """Read a text up to `start`, then letter by letter; what each letter costs, and which keys were spared.

    A suggestion is taken, by one key that writes the space too, as soon as it is what the text goes on with.
    """
    lm = state["lm"]
    lm.forget()
    model = adopt(lm.llm)
    lm.predict_words(text[:start], n)  # warm: the context has been read
    seconds, forwards, keys, at, taken = list[float](), list[int](), 0, start, start
    for at in range(start, len(text)):
        before, begun = model.statistics().forwards, time.perf_counter()
        with clock:
            found = lm.predict_words(text[:at], n)
        seconds.append(time.perf_counter() - begun)
        forwards.append(model.statistics().forwards - before)
        if at < taken:
            continue  # it was written by a suggestion; predictions are measured all the same
        keys += 1
        for word in found:
            rest = word.text
            after = text[at + len(rest) : at + len(rest) + 1]
            if len(rest) > 1 and text.startswith(rest, at) and not (after.isalpha() or after == "'"):
                taken = at + len(rest) + (after == " ")
                break
    return {"forwards": forwards, "milliseconds": [1e3 * s for s in seconds], "keys": keys}


if __name__ == "__main__":
    serve()
