"""The quick start as a command: the next byte after a prompt, and prompts that stop inside a word."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from genlm.bytes.byte_lm import BeamParams, ByteBeamState
from genlm.bytes.util import LazyByteProbs

if TYPE_CHECKING:
    from genlm.backend.llm import AsyncLM

__all__ = ["next_bytes", "show", "token_completion"]

QUESTION = b"An apple a day keeps the "
CUT_PROMPTS = ("The capital of France is Par", "The capital of Fra")
NEW_BYTES = 24
BAR = 30


def show(name: str | None, console: Console) -> None:
    """Run the demo on a model, printing to `console`."""
    from genlm.bytes.models import load_model

    llm = load_model(name)
    asyncio.run(_show(llm, console))


async def _show(llm: AsyncLM, console: Console) -> None:
    params = BeamParams(K=5, prune_threshold=0.05)
    start = await ByteBeamState.initial(llm, params)

    beam = await start.prefill(QUESTION)
    console.print(Text(f"What comes after {QUESTION.decode()!r}?", style="bold"))
    console.print(next_bytes(await beam.logp_next()))

    console.print(
        "\nA prompt that stops inside a word. A tokenizer cuts it where the model has never seen it cut;"
        "\nthe beam sums over all the ways to cut it.\n"
    )
    table = Table(box=None, pad_edge=False)
    for heading in ("prompt", "completed byte by byte", "completed token by token"):
        table.add_column(heading, overflow="fold")
    for prompt in CUT_PROMPTS:
        text = await start.greedy(prompt.encode(), NEW_BYTES)
        by_bytes = text[len(prompt) :].decode(errors="replace")
        table.add_row(
            Text(prompt),
            Text(_one_line(by_bytes), style="green"),
            Text(_one_line(token_completion(start.states[0].lm_state.model, prompt)), style="red"),
        )
    console.print(table)
    await start.cleanup()


def next_bytes(logp: LazyByteProbs, most: int = 5) -> Table:
    """The likeliest next bytes as a table with bars."""
    table = Table(box=None, pad_edge=False)
    table.add_column("byte")
    table.add_column("probability", justify="right")
    table.add_column("")
    for symbol, log in logp.pretty().top(most).items():
        p = math.exp(log)
        table.add_row(Text(str(symbol)), f"{p:.4f}", Text("█" * max(1, round(BAR * p)), style="green"))
    return table


def token_completion(llm: Any, prompt: str, new_bytes: int = NEW_BYTES) -> str:
    """What ordinary greedy token decoding appends to the same prompt, cut to as many bytes.

    The tokenizer splits the prompt, the likeliest token is appended until there are enough bytes or the
    end of the sequence is likeliest: what `transformers.generate` does with `do_sample=False`.
    """
    tokenizer = llm.tokenizer
    ids = list(tokenizer(prompt, add_special_tokens=False)["input_ids"])
    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    new = b""
    while len(new) < new_bytes:
        token = int(llm.next_token_logprobs_sync([*bos, *ids]).argmax())
        if token == tokenizer.eos_token_id:
            break
        ids.append(token)
        new += bytes(llm.byte_vocab[token])
    return new[:new_bytes].decode(errors="replace")


def _one_line(text: str) -> str:
    """Text of a model's making, without the control characters that a terminal would obey."""
    text = text.replace("\n", "⏎")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
