"""What the accuracy benchmark runs: readings of paragraphs, the reference among them, and prefills.

Contexts that one setting has evaluated are not evaluated again for the next (`counter.py`), and
the readings of the reference are kept under `benchmarks/.venvs/accuracy/`, since they take most of the time.
"""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accuracy.counter import counting
from accuracy.reading import Reading, read
from accuracy.settings import COLD, LOOSER, REFERENCE, REFERENCES, SETTINGS, Setting
from accuracy.texts import paragraph
from common.alternate import Reply, Worker
from common.figures import Rounds
from common.peers import HERE, VENVS, python_of

from genlm.bytes import ByteBeamState
from genlm.bytes.byte_lm.token_path import draft_tokens
from genlm.bytes.engine import Engine, Statistics
from genlm.bytes.models import default_model_path, load_default_model
from genlm.bytes.vocab import start_context

__all__ = ["KEPT", "Session", "emptied"]

WORKER = "accuracy.worker"
ENGLISH = HERE / "texts" / "english.txt"
KEPT = VENVS / "accuracy"
CACHE_BYTES = int(os.environ.get("BENCH_CACHE_BYTES", 3 << 30))


async def emptied(engine: Engine) -> Statistics:
    """Have an engine know the beginning of a text and nothing else; its statistics then."""
    engine.clear_cache()
    await engine.next_token_logprobs(start_context(engine))
    return engine.statistics()


class Session:
    """The model, an engine, and the paragraphs."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._texts: dict[str, bytes] = {}

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @cached_property
    def llm(self) -> Any:
        return load_default_model(progress=False)

    @cached_property
    def engine(self) -> Engine:
        return Engine(self.llm, max_cache_bytes=CACHE_BYTES)

    @cached_property
    def release(self) -> Worker:
        python = python_of("release")
        side = self._stack.enter_context(Worker(python, WORKER))
        found = side.ask("versions").facts
        assert found.get("genlm-bytes") == "0.2.0", f"{python} holds {found}"
        side.ask("load", folder=str(default_model_path()))
        return side

    def text(self, name: str) -> bytes:
        """A paragraph."""
        if name not in self._texts:
            self._texts[name] = paragraph(name, self.llm)
        return self._texts[name]

    def digest(self, name: str) -> str:
        """What tells versions of a paragraph apart."""
        return hashlib.sha256(self.text(name)).hexdigest()[:12]

    async def tokens(self, text: bytes) -> int:
        """The length of a text in the tokenizer's own tokens."""
        trie = (await ByteBeamState.initial(self.engine)).states[0].trie.trie
        return len(draft_tokens(self.llm, trie, text))

    # -- readings -------------------------------------------------------------------------------------

    async def readings(self, name: str, settings: list[str]) -> dict[str, tuple[Reading, Reading | None]]:
        """Each setting's reading of a paragraph, counted; and its reading with nothing cached, if any.

        The strictest come first: what they evaluate, in few large forwards, the others find in the cache.
        """
        order = sorted(settings, key=lambda s: s in COLD)
        counted = {s: await self._counted(name, SETTINGS[s]) for s in order}
        cold = {s: await self._cold(name, SETTINGS[s]) for s in COLD if s in settings}
        return {s: (counted[s], cold.get(s)) for s in settings}

    async def _counted(self, name: str, setting: Setting) -> Reading:
        counter = counting(self.engine)
        found = await read(counter, setting.beam_params(), self.text(name))
        found.contexts, found.forwards = counter.backend.contexts, counter.backend.forwards
        return found

    async def _cold(self, name: str, setting: Setting) -> Reading:
        before = await emptied(self.engine)
        found = await read(self.engine, setting.beam_params(), self.text(name))
        after = self.engine.statistics()
        found.contexts = after.tokens_run - before.tokens_run
        found.forwards = after.forwards - before.forwards
        return found

    async def reference(self, name: str) -> tuple[Reading, Reading]:
        """The reference's reading of a paragraph, and that of the looser setting."""
        strict, looser = REFERENCES.get(name, (REFERENCE, LOOSER))
        return await self._kept(name, strict), await self._kept(name, looser)

    async def _kept(self, name: str, setting: Setting) -> Reading:
        path = self._path(name, setting)
        if not path.exists():
            (await self._counted(name, setting)).save(path)
        return Reading.load(path)

    def _path(self, name: str, setting: Setting) -> Path:
        return KEPT / f"{name}-{setting.words.replace(' ', '-')}-{self.digest(name)}.npz"

    # -- release 0.2.0 --------------------------------------------------------------------------------

    def released(self, name: str, setting: Setting) -> Reading:
        """The release's own reading of a paragraph; it takes minutes to hours."""
        path = KEPT / f"{name}-release.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = self.text(name).decode("latin-1")
        reply = self.release.ask("follow", text=text, params=setting.params, into=str(path))
        nothing = np.zeros(len(text))
        return Reading(
            probs=np.load(path),
            bound=nothing,
            expected=nothing,
            upper=nothing,
            waiting=0.0,
            seconds=reply.cpu[0],
            logZ=np.array(reply.facts.pop("logZ")),
            **reply.facts,
        )

    # -- prefill --------------------------------------------------------------------------------------

    async def prefill(self, length: int, rounds: int) -> Rounds:
        """Prefill of English from nothing, and one plain forward over its tokens, in turns."""
        text = ENGLISH.read_bytes()[:length]
        ids = [*start_context(self.llm), *self.llm.tokenizer.encode(text.decode(), add_special_tokens=False)]
        found: Rounds = []
        for turn in range(rounds + 1):
            sides = [self._prefilled(text), self._plain(ids)]
            names = ["ours", "forward"]
            replies = {}
            for i in (0, 1) if turn % 2 == 0 else (1, 0):
                replies[names[i]] = [await sides[i]]
            if turn:  # the first runs code once
                found.append(replies)
        return found

    async def _prefilled(self, text: bytes) -> Reply:
        before = await emptied(self.engine)
        beam = await ByteBeamState.initial(self.engine)
        clock, cpu = time.perf_counter(), time.process_time()
        beam = await beam.prefill(text)
        seconds = time.perf_counter() - clock, time.process_time() - cpu
        after = self.engine.statistics()
        facts = {
            "logZ": beam.logZ,
            "contexts": after.tokens_run - before.tokens_run,
            "forwards": after.forwards - before.forwards,
        }
        return Reply([seconds[0]], facts, [seconds[1]])

    async def _plain(self, ids: list[int]) -> Reply:
        clock, cpu = time.perf_counter(), time.process_time()
        with torch.no_grad():
            self.llm.model(torch.tensor([ids], device=self.llm.model.device))
        return Reply([time.perf_counter() - clock], {"tokens": len(ids)}, [time.process_time() - cpu])
