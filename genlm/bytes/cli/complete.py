"""`genlm-bytes complete`: go on with a text from wherever it stops."""

from __future__ import annotations

import codecs
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genlm.bytes.cli.output import (
    bytes_json,
    completion_json,
    on_terminal,
    write,
    write_json,
    write_line_end,
)
from genlm.bytes.cli.sampling import Sampling, Streaming
from genlm.bytes.cli.shared import Shared
from genlm.bytes.cli.source import TextInput, argument_bytes, argument_text, as_text
from genlm.bytes.errors import called
from genlm.bytes.options import Options

if TYPE_CHECKING:
    from genlm.bytes import ByteLM
    from genlm.bytes.generate import Completion

__all__ = ["complete", "play"]


def complete(
    text: TextInput,
    sampling: Sampling,
    shared: Shared,
    n: Annotated[int, typer.Option("-n", help="How many completions.")] = 1,
    best_of: Annotated[int | None, typer.Option(help="Draw so many and give the n likeliest.")] = None,
    particles: Annotated[
        int | None, typer.Option(help="Draw so many together, from the strings that a mask leaves.")
    ] = None,
    echo: Annotated[bool, typer.Option("--echo", help="Write the text before its completion.")] = False,
    logprobs: Annotated[
        bool,
        typer.Option("--logprobs", help="With --json: what each byte costs; with --echo the text's, too."),
    ] = False,
    top_logprobs: Annotated[
        int | None, typer.Option(help="With --json: so many alternatives in each place.")
    ] = None,
    healing: Annotated[
        bool, typer.Option("--healing/--no-healing", help="Whether the text may stop inside a token.")
    ] = True,
    valid_utf8: Annotated[
        bool, typer.Option("--valid-utf8/--any-bytes", help="Whether bytes that are no text are forbidden.")
    ] = True,
    suffix: Annotated[
        str | None, typer.Option(help="What stands after the gap, for models that fill in the middle.")
    ] = None,
    fim: Annotated[
        tuple[str, str, str] | None,
        typer.Option(
            help="The names of its prefix, suffix and middle tokens; '' for a middle it has not.",
            show_default=False,
        ),
    ] = None,
    regex: Annotated[
        str | None, typer.Option(help="A regular expression that the whole completion matches.")
    ] = None,
    json_schema: Annotated[
        Path | None, typer.Option(help="A file with a JSON schema that the completion fits.")
    ] = None,
    parse_special: Annotated[
        bool, typer.Option("--parse-special", help="Take special tokens that the text spells for such.")
    ] = False,
    stream: Streaming = None,
) -> None:
    """Continue a text from wherever it stops, mid-word or not.

    On a terminal control characters are escaped. Into a pipe or a file go
    exactly the new bytes and nothing else; of several completions each
    ends with a newline there.

    Examples:

    genlm-bytes complete "The capital of Fra" --max-bytes 12
    genlm-bytes complete "Once upon a ti" -n 3 --seed 1 --max-bytes 40
    genlm-bytes complete --file notes.txt --stop . --echo
    printf 'def fib' | genlm-bytes complete - --max-tokens 8 > fib.txt
    genlm-bytes complete "In the year " --regex "19..|20.." --json
    genlm-bytes complete "In the year " --regex "19..|20.." --particles 8
    genlm-bytes complete "The capital of Fra" --json --logprobs --echo
    """
    prompt = text.read()
    options: dict[str, Any] = {
        **sampling.options(),
        "logprobs": logprobs,
        "top_logprobs": top_logprobs,
        "token_healing": healing,
        "valid_utf8": valid_utf8,
        "suffix": None if suffix is None else argument_bytes(suffix),
        "fim": None if fim is None else tuple(argument_text("fim", name) or None for name in fim),
        "mask": _mask(regex, json_schema),
    }
    if parse_special and suffix is not None:
        raise typer.BadParameter("goes with no --suffix", param_hint="--parse-special")
    spelled = as_text("text", prompt) if parse_special else ""
    single = n == 1 and best_of is None and particles is None
    if stream and not single:
        raise typer.BadParameter("only one completion can be streamed", param_hint="--stream")
    if (logprobs or top_logprobs is not None) and not shared.as_json:
        name = "--logprobs" if logprobs else "--top-logprobs"
        raise typer.BadParameter("figures by byte are for programs: give --json too", param_hint=name)
    with shared.working("Starting"):
        # Mistakes are found before the seconds that a model takes to load.
        Options.of(options, n=n, best_of=best_of, particles=particles)
    with shared.model() as lm:
        given = lm.parse_special(spelled) if parse_special else prompt
        if single and (not shared.as_json if stream is None else stream):
            _stream(lm, prompt, given, options, echo, shared)
            return
        with shared.working(f"Reading {len(prompt):,} bytes and writing"):
            found = lm.complete(given, n=n, best_of=best_of, particles=particles, echo=echo, **options)
        completions = found if isinstance(found, list) else [found]
        cut: float = getattr(found, "unfinished", 0.0)
        if cut and options["mask"] is not None:
            part = f"{cut:.0%} of the weight is on texts that were cut short, as beginnings"
            shared.warn(f"{part}. Give a larger --max-bytes.")
        if shared.as_json:
            every = [completion_json(c) for c in completions]
            write_json({"prompt": bytes_json(prompt), "completions": every})
        else:
            _write_all(completions, shared)


def play(
    lm: ByteLM, prompt: Any, options: dict[str, Any], shared: Shared, opening: bytes = b""
) -> Completion:
    """Write a completion as it comes, as text after `opening`, or as lines of JSON; the whole at the end.

    Leaving early, by Ctrl-C too, stops the work and ends the line.
    """
    with lm.stream(prompt, **options) as stream:
        with shared.working("Reading"):  # it draws over its line: nothing is written before it is gone
            first = list(islice(stream, 1))
        try:
            if opening and not shared.as_json:
                write(codecs.getincrementaldecoder("utf-8")("replace").decode(opening), opening)
            for chunk in chain(first, stream):
                if shared.as_json:
                    write_json({"event": "chunk", **bytes_json(chunk.bytes), "text": chunk.text})
                else:
                    write(chunk.text, chunk.bytes)
        finally:
            if not shared.as_json:
                write_line_end()
        assert stream.completion is not None
        return stream.completion


def _stream(
    lm: ByteLM, prompt: bytes, given: Any, options: dict[str, Any], echo: bool, shared: Shared
) -> None:
    if shared.as_json:
        options = {**options, "echo": echo}
    completion = play(lm, given, options, shared, prompt if echo else b"")
    if shared.as_json:
        write_json({"event": "completion", "prompt": bytes_json(prompt), **completion_json(completion)})
    else:
        shared.remark(summary(completion))


def summary(completion: Completion) -> str:
    """A completion's figures in a line."""
    usage = completion.usage
    tokens = "" if usage.completion_tokens is None else f", {usage.completion_tokens} tokens"
    figures = f"{usage.completion_bytes} bytes{tokens}, logprob {completion.logprob:.3f}"
    return f"[{completion.finish_reason}: {figures}]"


def _write_all(completions: list[Completion], shared: Shared) -> None:
    for i, completion in enumerate(completions):
        if len(completions) > 1 and on_terminal():
            shared.remark(f"{i + 1}")
        write(completion.text, completion.bytes + (b"\n" if len(completions) > 1 else b""))
        write_line_end()
        shared.remark(summary(completion))


def _mask(regex: str | None, schema: Path | None) -> Any:
    if regex is not None and schema is not None:
        raise typer.BadParameter("give --regex or --json-schema, not both", param_hint="--regex")
    if regex is None and schema is None:
        return None
    from genlm.bytes.generate import grammar

    with called(file="json_schema", schema="json_schema", pattern="regex"):
        if schema is not None:
            return grammar.json_schema(TextInput(file=schema).read_text().removeprefix("\ufeff"))
        assert regex is not None
        return grammar.regex(argument_text("regex", regex))
