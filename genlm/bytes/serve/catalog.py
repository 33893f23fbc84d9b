"""The models that a server has, by name: loaded in the background, so that it can say that it is loading."""

from __future__ import annotations

import asyncio
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from genlm.bytes.api import AsyncByteLM
from genlm.bytes.backends.llama_cpp.options import LlamaCppOptions
from genlm.bytes.byte_lm import BeamParams
from genlm.bytes.errors import GenlmBytesError, bad_value, check_names
from genlm.bytes.resumable import saying
from genlm.bytes.serve.failures import Refusal

__all__ = ["EMBEDDED", "Catalog", "ModelSpec", "read_config", "spec_of"]

EMBEDDED = "embedded"
"""How the embedded model is called where a path is asked for."""
BEAM = ("K", "prune_threshold", "tolerance")
"""Settings of the beam that a file may have."""
EMBEDDED_NAME = "SmolLM2-135M-Instruct"


@dataclass(frozen=True)
class ModelSpec:
    """One model to be served.

    Attributes:
        name: what clients call it.
        path: a folder, file or hub name; None for the embedded model.
        members: or the names of others that are one model together.
        options: for `load_model`, or for `AsyncByteLM.ensemble`.
        params: settings of the beam.
        start: the token that texts begin after; None for the usual one.
    """

    name: str
    path: str | None = None
    members: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    params: BeamParams | None = None
    start: str | int | None = None


def spec_of(
    given: str | None, options: Mapping[str, Any], params: BeamParams | None, start: str | None = None
) -> ModelSpec:
    """A model as the command line names it: `name=path`, or a path, whose last part is then its name.

    Examples:
        >>> spec_of("gpt=models/a.gguf", {}, None).name, spec_of("org/Model-1B", {}, None).name
        ('gpt', 'Model-1B')
    """
    name, path = None, given
    if given is not None and (found := re.fullmatch(r"([\w.:-]+)=(.*)", given, re.DOTALL)):
        name, path = found.groups()
    path = None if path in (None, "", EMBEDDED) else path
    name = name or (EMBEDDED_NAME if path is None else PurePath(str(path).rstrip("/\\")).name) or str(path)
    return ModelSpec(name, path, (), dict(options), params, start)


def read_config(path: Path) -> list[ModelSpec]:
    """Models and ensembles from a TOML file; see the page on serving.

    Raises:
        ValueError: it cannot be read, or says something that cannot be done.
    """

    def wrong(rule: str) -> Exception:
        return bad_value("config", str(path), rule)

    with saying("cannot be read", lambda rule, _: wrong(rule)):
        text = path.read_bytes()
    try:
        tables = tomllib.loads(text.decode()).get("models")
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise wrong(f"must be TOML ({error})") from None
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise wrong("must have a table for each model, [models.NAME]")
    found = []
    for name, table in tables.items():
        try:
            found.append(_configured(name, dict(table), tables))
        except GenlmBytesError as error:
            said = (
                re.sub(r"(\w)=(\S)", r"\1 = \2", str(error)).replace("`", "'").rstrip(".")
            )  # as TOML has it
            raise wrong(f"[models.{name}] cannot be: {said}") from None
    return found


def _configured(name: str, given: dict[str, Any], tables: Mapping[str, Any]) -> ModelSpec:
    """What a table of a file says of a model."""
    if "ensemble" in given:
        check_names(given, ("ensemble", "op", "weights", "floor", "contexts"))
        members = given.pop("ensemble")
        if not isinstance(members, list) or not all(
            isinstance(m, str) and m in tables and "ensemble" not in tables[m] for m in members
        ):
            raise bad_value("ensemble", members, "must be a list of names of other models of this file")
        return ModelSpec(name, None, tuple(members), given)
    known = ("path", "device", "dtype", "backend", "start", *BEAM, *sorted(LlamaCppOptions.names()))
    check_names(given, known)
    params = BeamParams(**{key: given.pop(key) for key in BEAM if key in given})
    source, start = given.pop("path", EMBEDDED), given.pop("start", None)
    return ModelSpec(name, None if source == EMBEDDED else str(source), (), given, params, start)


class Catalog:
    """The models by name, in the order given; the first is asked where a request names none.

    Args:
        specs: what is to be loaded, by `load`.
        ready: models that are loaded already.
    """

    def __init__(
        self, specs: Sequence[ModelSpec] = (), ready: Mapping[str, AsyncByteLM] | None = None
    ) -> None:
        self._ready = dict(ready or {})
        self.names = [*self._ready, *(spec.name for spec in specs)]
        twice = next((name for name in self.names if self.names.count(name) > 1), None)
        if twice is not None:
            raise bad_value("model", twice, "is the name of two models", "Name them: name=path.")
        if not self.names:
            raise bad_value("model", None, "there must be one")
        # What is made of others is made last.
        self._specs = sorted(specs, key=lambda spec: bool(spec.members))

    @property
    def loading(self) -> list[str]:
        """The names of those that are not ready."""
        return [name for name in self.names if name not in self._ready]

    async def load(self, load_model: Callable[..., Any]) -> None:
        """Load what is not loaded yet, one model after another, in a thread.

        Raises:
            GenlmBytesError: one that cannot be loaded.
        """
        llms: dict[Any, Any] = {}
        for spec in self._specs:
            if spec.members:
                members = [self._ready[name] for name in spec.members]
                self._ready[spec.name] = AsyncByteLM.ensemble(members, **spec.options)
                continue
            key = (spec.path, *sorted(spec.options.items()))
            if key not in llms:
                llms[key] = await asyncio.to_thread(load_model, spec.path, **spec.options)
            lm = AsyncByteLM(llms[key], spec.params, start=spec.start)
            await lm.next(b"")  # the trie is built, and the first forward run, before somebody waits for it
            self._ready[spec.name] = lm

    def get(self, name: str | None) -> tuple[str, AsyncByteLM]:
        """A model with its name.

        Raises:
            Refusal: there is none of this name, or it is not ready.
        """
        name = self.names[0] if name is None else name
        if name in self._ready:
            return name, self._ready[name]
        if name in self.names:
            raise Refusal(503, f"the model `{name}` is loading.", "model", "model_loading", retry_after=2)
        known = ", ".join(f"`{known}`" for known in self.names)
        raise Refusal(
            404, f"there is no model `{name[:80]}` here. Known: {known}.", "model", "model_not_found"
        )

    def ready(self) -> list[tuple[str, AsyncByteLM]]:
        """Those that can be asked."""
        return list(self._ready.items())

    async def close(self) -> None:
        """Let the models go."""
        for lm in self._ready.values():
            await lm.close()
