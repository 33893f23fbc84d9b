"""How far scores at default accuracy are from near-exact ones: of four paragraphs and of thirty sentences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from accuracy.session import Session
from accuracy.texts import PARAGRAPHS
from common.results import Table

from genlm.bytes import AsyncByteLM, BeamParams
from genlm.bytes.byte_lm.constants import ToleranceConstants
from genlm.bytes.byte_lm.tolerance import ToleranceRule
from genlm.bytes.engine import adopt

__all__ = ["of_paragraphs", "of_sentences"]

TEXTS = ("english", "python", "chinese", "german")
SENTENCES = 30
STRICT, LOOSER = 2e-5, 5e-5
LEAST = 1e-3
OFF = 0.02


async def of_paragraphs(_: Sequence[str]) -> tuple[Table, str]:
    """A row for each text, and a note."""
    table = Table(["", "bytes", "mean |Δ| a byte, nats", "worst |Δ|", "at byte", "total Δ", "reference ±"])
    with Session() as session:
        for name in TEXTS:
            text = session.text(name)
            strict, looser = await session.reference(name)
            at = np.arange(len(text)), np.frombuffer(text, np.uint8)
            want, other = np.log(strict.probs[at]), np.log(looser.probs[at])
            async with AsyncByteLM(session.llm) as lm:
                await lm.forget()
                score = await lm.score(text)
            off = np.abs(score.logprobs - want)
            table.rows.append(
                [
                    PARAGRAPHS[name],
                    str(len(text)),
                    f"{off.mean():.1e}",
                    f"{off.max():.4f}",
                    f"{int(off.argmax())}",
                    f"{score.logprob - want.sum():+.4f}",
                    f"{np.abs(other - want).max():.4f}",
                ]
            )
            print(*table.rows[-1], flush=True)
    return table, (
        "paragraphs: `score` at default accuracy against the near-exact readings of the benchmark `accuracy` "
        "(tolerance 1e-5; German 3e-5), by how much the byte's log-probability differs; ±: by how much the "
        "reference differs from one three times looser, at worst"
    )


async def of_sentences(sentences: Sequence[str]) -> tuple[Table, str]:
    """One row, and a note."""
    some = list(sentences[:SENTENCES])
    with Session() as session:

        async def scored(params: BeamParams) -> list[np.ndarray]:
            async with AsyncByteLM(session.llm, params) as lm:
                return [score.logprobs for score in await lm.score(some)]

        sooner = ToleranceConstants(min_symbol_prob=LEAST)
        rules = [ToleranceRule(t, constants=sooner) for t in (STRICT, LOOSER)]
        strict, looser = [await scored(BeamParams(rule=rule)) for rule in rules]
        engine = adopt(session.llm)
        engine.clear_cache()
        before = engine.statistics().tokens_run
        ours = await scored(BeamParams())
        contexts = engine.statistics().tokens_run - before
        tokens = sum(len(session.llm.tokenizer.encode(s, add_special_tokens=False)) for s in some)

    def apart(found: list[np.ndarray]) -> list[float]:
        return [abs(float((a - b).sum())) for a, b in zip(found, strict, strict=True)]

    totals, doubt = apart(ours), max(apart(looser))
    off = np.abs(np.concatenate(ours) - np.concatenate(strict))
    table = Table(
        [
            "",
            "contexts a token",
            "mean |Δ| a sentence, nats",
            "worst",
            "mean |Δ| a byte",
            "worst",
            f"> {OFF}",
        ],
        [
            [
                f"{len(some)} sentences, {len(off):,} bytes",
                f"{contexts / tokens:.2f}",
                f"{np.mean(totals):.4f}",
                f"{max(totals):.3f}",
                f"{off.mean():.1e}",
                f"{off.max():.3f}",
                f"{int((off > OFF).sum())}",
            ]
        ],
    )
    print(*table.rows[-1], flush=True)
    return table, (
        f"sentences: the first {len(some)} by themselves, each right after the beginning-of-sequence token, "
        f"which is this model's chat marker, in nats, against tolerance {STRICT:g} that looks sooner "
        f"(`min_symbol_prob` {LEAST:g}); tolerance {LOOSER:g} differs from that by {doubt:.3f} nats a "
        f"sentence at most; > {OFF}: bytes that are further off"
    )
