"""A byte-level model, or several as one, as a potential of `genlm-control`, for its samplers and critics.

`genlm-control`'s own `ByteLLM` runs on a beam of one model; this one on whatever `ByteLM` is: an ensemble, a
model after a chat, a GGUF file. A string weighs the product of its potentials (`genlm.bytes.ensemble`): of
one model its probability.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np

from genlm.bytes.api import AsyncByteLM, ByteLM
from genlm.bytes.errors import EmptyBeamError, bad_type
from genlm.bytes.util.symbols import EOS

try:
    from genlm.control.potential.base import Potential
except ImportError as error:  # pragma: no cover
    from genlm.bytes.errors import MissingDependencyError

    raise MissingDependencyError('this needs genlm-control: pip install "genlm-control>=0.4"') from error

__all__ = ["BytePotential"]


class BytePotential(Potential):  # type: ignore[misc]
    """What a model says of bytes that come after a prompt.

    Args:
        lm: a `ByteLM` or `AsyncByteLM`; an ensemble too.
        prompt: what stands before; see `ByteLM.complete`.
        cache_size: contexts that are kept.
    """

    def __init__(self, lm: ByteLM | AsyncByteLM, prompt: Any = b"", cache_size: int = 1024) -> None:
        if not isinstance(lm, ByteLM | AsyncByteLM):
            raise bad_type("lm", lm, "must be a ByteLM or an AsyncByteLM")
        self.lm = lm.asynchronous if isinstance(lm, ByteLM) else lm
        self.prompt = prompt
        self._size = cache_size
        self._places: OrderedDict[bytes, tuple[Any, float]] = OrderedDict()
        super().__init__(vocabulary=[bytes([b]) for b in range(256)])

    async def prefix(self, context: Sequence[bytes]) -> float:
        """Natural log of the weight of all strings that begin so."""
        return (await self._place(b"".join(context)))[1]

    async def complete(self, context: Sequence[bytes]) -> float:
        """Natural log of the weight of the string that ends there."""
        state, weight = await self._place(b"".join(context))
        return weight + float((await _potentials(state))[EOS])

    async def logw_next(self, context: Sequence[bytes]) -> Any:
        """Natural logs of the potentials of the 256 bytes and of the end."""
        state, _ = await self._place(b"".join(context))
        return self.make_lazy_weights(np.delete(await _potentials(state), 256))

    async def _place(self, text: bytes) -> tuple[Any, float]:
        """The state after a text, and the natural log of its weight."""
        known = next((n for n in range(len(text), -1, -1) if text[:n] in self._places), None)
        if known is None:
            known, start = 0, (await self.lm._read(self.prompt, name="prompt")).beam
            self._places[b""] = start, 0.0
        state, weight = self._places[text[:known]]
        for at in range(known, len(text)):
            weight += float((await _potentials(state))[text[at]])
            state = None if weight == -math.inf else await (state.prune() << text[at])
            self._places[text[: at + 1]] = state, weight
        self._places.move_to_end(text)
        while len(self._places) > self._size:
            self._places.popitem(last=False)
        return state, weight

    async def cleanup(self) -> None:
        """Forget the contexts."""
        self._places.clear()


async def _potentials(state: Any) -> np.ndarray:
    if state is None:
        return np.full(258, -np.inf)
    try:
        return np.asarray((await state.log_potentials()).ps)
    except EmptyBeamError:
        return np.full(258, -np.inf)
