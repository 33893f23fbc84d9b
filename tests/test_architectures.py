"""Every causal architecture of transformers that is built small: right through whatever `adopt` makes of it.

Contexts that share beginnings, as a beam's do, up to the longest that the model reads, are compared with its
own forward over each; where the engine does without a tree, the log has said why.
"""

from __future__ import annotations

import logging
import os

import architectures
import numpy as np
import pytest
import tiny
from test_engine import plain, random_contexts

from genlm.bytes import BeamParams, ByteBeamState
from genlm.bytes.backends.hf_tree.uncached import UncachedModel
from genlm.bytes.byte_lm.context_limits import longest_context
from genlm.bytes.engine import Engine, adopt
from genlm.bytes.errors import GenlmBytesError

NEAR = 1e-4
"""Nats. Round-off of weights of so large a spread is 1e-6 to 8e-5; a token less costs 1e-3 and more."""
IN_FLOAT64 = {"mamba"}
"""Whose round-off in float32 is 2e-4 on some machines, and nothing in float64."""
SHORT = [
    "big_bird",  # its buffers are as wide as its longest text
    "deepseek_v3",  # keys and values of different sizes
    "gemma3n_text",  # layers that attend to the keys and values of others
    "hy_v4",  # selects what it attends to, and breaks ties by what is to come
    "mpt",  # its own name for the longest text
    "roberta",  # its positions begin after that of padding
    "xlm",  # looks ahead, and counts padding by its token
    "xlnet",  # reads any number of tokens, by -1
]
"""Run by `make test`: each was wrong once, or failed, or is of a kind of its own. `make thorough` runs every
third of the others, and all of them with `EVERY_ARCHITECTURE=1`."""
SLOW = {"kimi_linear", "nemotron_h"}
"""Minutes each, by full forwards."""


def _kinds() -> list[object]:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as known

    rest = sorted(set(known) - set(SHORT) - {"prophetnet"})
    if not os.environ.get("EVERY_ARCHITECTURE"):
        rest = [kind for kind in rest if kind not in SLOW][::3]
    further = pytest.mark.xfail(strict=True, reason="it looks up one position more than it reads tokens")
    return [
        *SHORT,
        *(pytest.param(kind, marks=pytest.mark.thorough) for kind in rest),
        pytest.param("prophetnet", marks=[pytest.mark.thorough, further]),
    ]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", _kinds())
def test_agrees_with_its_own_forward(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    from genlm.backend.llm import AsyncTransformer

    try:
        model = architectures.model(kind)
        llm = AsyncTransformer(model.double() if kind in IN_FLOAT64 else model, tiny.tokenizer())
    except architectures.NotBuilt as error:
        assert kind not in SHORT
        pytest.skip(str(error)[:200])
    with caplog.at_level(logging.WARNING, "genlm.bytes"):
        engine = adopt(llm)
    if engine is llm:  # its own forward fails, which has been said
        assert kind not in SHORT and "It may fail" in caplog.text
        pytest.skip(caplog.text[-200:])
    assert isinstance(engine.backend.runner, UncachedModel) == (
        "every context from its beginning" in caplog.text
    )
    rng = np.random.default_rng(0)
    contexts = random_contexts(rng, 40, longest=110)
    longest = engine.backend.max_length or 128
    contexts.append(rng.integers(2, len(tiny.tokenizer()), longest).tolist())
    for asked in (contexts[:20], contexts):
        for ids, row in zip(asked, engine.batch_next_token_logprobs_sync(asked), strict=True):
            assert (row - plain(llm, ids)).abs().max() < NEAR, len(ids)
    if engine.backend.max_length is not None:
        with pytest.raises(GenlmBytesError, match="reads at most"):
            engine.next_token_logprobs_sync([*contexts[-1], 5])


def test_one_wide_forward_is_as_wide_as_the_longest_text() -> None:
    from genlm.backend.llm import AsyncTransformer

    engine = Engine(AsyncTransformer(architectures.model("big_bird"), tiny.tokenizer()))
    before = engine.statistics()
    engine.batch_next_token_logprobs_sync([[i, j] for i in range(2, 22) for j in range(2, 12)])
    after = engine.statistics()
    assert after.tokens_run - before.tokens_run == 220
    assert after.forwards - before.forwards > 1


async def test_a_beam_knows_how_far_positions_reach() -> None:
    from genlm.backend.llm import AsyncTransformer

    for kind, longest in (("roberta", architectures.LONGEST), ("xlnet", None)):
        llm = AsyncTransformer(architectures.model(kind), tiny.tokenizer())
        beam = await ByteBeamState.initial(llm, BeamParams(K=2))
        assert longest_context(beam.states[0].lm_state) == longest


@pytest.mark.thorough
def test_most_are_built() -> None:
    """What is not is of several modalities, or takes more than a few small sizes."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as known

    def is_built(kind: str) -> bool:
        try:
            architectures.model(kind)
        except architectures.NotBuilt:
            return False
        return True

    assert sum(map(is_built, known)) > 0.7 * len(known)
