"""`genlm-bytes serve`: models over HTTP, and a page to look through."""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from genlm.bytes.cli.gguf import GGUF
from genlm.bytes.cli.output import complain
from genlm.bytes.cli.shared import beam_params
from genlm.bytes.escaping import safe_text

if TYPE_CHECKING:
    from genlm.bytes.serve import ModelSpec

__all__ = ["serve"]


def serve(
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help="A folder, GGUF file or hub name, or NAME=one of these, or NAME=embedded; may be given "
            "several times. The embedded model if not given.",
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A TOML file of models and ensembles, in place of --model.")
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 for any that is free.")] = 8000,
    api_key: Annotated[
        Path | None,
        typer.Option(
            help="A file of keys, one a line, one of which clients must have. (Or one key in the "
            "environment: GENLM_BYTES_API_KEY.)"
        ),
    ] = None,
    cors: Annotated[
        list[str] | None,
        typer.Option(help="An origin whose pages may ask, or * for all; may be given several times."),
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A name under which the server may be asked besides localhost.")
    ] = None,
    max_concurrent: Annotated[int, typer.Option(help="Requests that are worked at the same time.")] = 16,
    max_queue: Annotated[int, typer.Option(help="Requests that may wait; more are refused with 429.")] = 64,
    timeout: Annotated[float, typer.Option(help="Seconds that a request may take.")] = 120.0,
    max_body: Annotated[int, typer.Option(help="Bytes of a request's body.")] = 1 << 20,
    max_prompt: Annotated[int, typer.Option(help="Bytes of a prompt, or of a text to be scored.")] = 1 << 16,
    grace: Annotated[int, typer.Option(min=0, help="Seconds that running requests have at the end.")] = 10,
    K: Annotated[int | None, typer.Option("--K", help="The most hypotheses that the beam keeps.")] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Drop hypotheses below this share of the beam; needs --K.")
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(help="Hypotheses below this share wait; 0.0005 by default.")
    ] = None,
    canonical: Annotated[
        bool,
        typer.Option("--canonical", help="Count only tokenizations that the tokenizer itself makes."),
    ] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps, auto.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16, float16, auto.")] = None,
    gguf: GGUF = GGUF(),  # noqa: B008 — it is frozen
    start: Annotated[
        str | None, typer.Option(help="The token that texts begin after, as <|endoftext|>.")
    ] = None,
    log_texts: Annotated[
        bool, typer.Option("--log-texts", help="Log what is asked, not only how much.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No log; errors only.")] = False,
) -> None:
    """Serve models over HTTP: OpenAI's API, and a page at /.

    Needs the extra `serve` of this package. Ctrl-C ends it.

    Examples:

    genlm-bytes serve
    genlm-bytes serve --port 8080 --model small=embedded --model big=./model.gguf
    genlm-bytes serve --host 0.0.0.0 --api-key keys.txt --cors https://example.org
    """
    from genlm.bytes.errors import called, optional

    for module in ("fastapi", "uvicorn", "prometheus_client"):
        optional(module, "The server", "'genlm-bytes[serve]'")
    from genlm.bytes.models import load_model
    from genlm.bytes.serve import Catalog, Keys, Settings, is_loopback, read_keys
    from genlm.bytes.serve import serve as run

    if config is not None and models:
        raise typer.BadParameter("give --model or --config, not both", param_hint="--config")
    if config is not None and gguf != GGUF():
        raise typer.BadParameter(
            "says how each of its models is run: n_ctx, n_threads, …", param_hint="--config"
        )
    where = {"device": device, "dtype": dtype}
    specs = _specs(models, config, K, threshold, tolerance, canonical, where, gguf, start)
    keys = read_keys(api_key)
    local = is_loopback(host)
    hosts = ("localhost", "127.0.0.1", "::1", host) if local or allow_host else ()
    with called(origins="cors"):
        settings = Settings(
            max_concurrent=max_concurrent,
            max_queue=max_queue,
            timeout=timeout,
            max_body=max_body,
            max_prompt=max_prompt,
            keys=Keys(keys),
            origins=tuple(cors or ()),
            hosts=(*hosts, *(name.lower() for name in allow_host or ())),
            log_texts=log_texts,
        )
    catalog = Catalog(specs)
    _log(quiet)
    if not local and not keys and not quiet:
        complain(f"anyone who can reach {host} can ask: give --api-key, or keep to 127.0.0.1.")

    def say(where: str) -> None:
        if not quiet:
            names = ", ".join(catalog.names)
            sys.stdout.write(safe_text(f"{where}  page\n{where}/v1  API\nmodels: {names}\n"))
            sys.stdout.flush()

    load = partial(load_model, progress=not quiet and sys.stderr.isatty())
    run(catalog, settings, load, host=host, port=port, grace=grace, say=say)


def _specs(
    models: list[str] | None,
    config: Path | None,
    K: int | None,
    threshold: float | None,
    tolerance: float | None,
    canonical: bool,
    where: dict[str, str | None],
    gguf: GGUF,
    start: str | None,
) -> list[ModelSpec]:
    """What is to be served."""
    from genlm.bytes.serve import read_config, spec_of

    if config is not None:
        return read_config(config)
    params = beam_params(K, threshold, tolerance, canonical)
    options = {name: value for name, value in where.items() if value is not None}
    given: list[str | None] = [*(models or ())] or [None]
    specs = [spec_of(one, options, params, start) for one in given]
    options |= gguf.options([spec.path for spec in specs])
    return [replace(spec, options=options) for spec in specs]


def _log(quiet: bool) -> None:
    """A line a request on stderr."""
    logger = logging.getLogger("genlm.bytes.serve")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.ERROR if quiet else logging.INFO)
    logger.propagate = False
