"""How few contexts an oracle needs, that knows in advance what each of them will be worth.

The judged texts (`judged.py`), as documents. Of a near-exact reading every hypothesis is kept, with its share
of the prefix probability at each byte. An oracle evaluates those contexts alone whose hypotheses, or those
that went on from them, ever come to hold more than a threshold, one for all texts; what it leaves out is its
error. No rule that goes by shares can need fewer contexts for the same error: it has to guess.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
from accuracy.judged import DEFAULT, REPORT, digest, measured, texts
from accuracy.session import Session
from accuracy.settings import Setting
from common.figures import Figures
from common.machine import hardware, versions
from common.options import Options
from common.peers import HERE
from common.results import Report, Table
from common.worker import Clock
from common.worker import versions as package_versions

from genlm.bytes import ByteBeamState, LazyTrieState
from genlm.bytes.contexts.tree import ContextNode

__all__ = ["run"]

START, SUFFIX = "<|endoftext|>", " as a document"
WHOLE = Setting("tolerance 5e-5 and 1e-3 a byte", {"tolerance": 5e-5}, 1e-3)
"""The reading that an oracle chooses from."""
THRESHOLDS = (1e-2, 5e-3, 4e-3, 3e-3, 2e-3, 1e-3, 5e-4, 4e-4, 2e-4)


async def shares(llm: Any, text: bytes, first: int) -> dict[ContextNode, np.ndarray]:
    """By context, the shares of the prefix probability after each byte that its hypotheses hold."""
    beam = await ByteBeamState.initial(llm, WHOLE.beam_params(), initial_context=[first])
    weights = defaultdict[ContextNode, dict[int, float]](dict)

    def note(state: LazyTrieState, read: int) -> None:
        weights[state.lm_state.node][read] = state.weight

    for at, byte in enumerate(text):
        beam = await beam.prune().advance(byte, pruned=at + 1 < len(text))
        for state in beam.states:
            note(state, at)
        begun = beam.data.history.length - at - 1
        for late in beam.data.late:
            for read, state in enumerate(late.passed, late.place - begun):
                note(state, read)
    table = {node: np.full(len(text), -np.inf) for node in weights}
    for node, found in weights.items():
        table[node][list(found)] = list(found.values())
    whole = np.logaddexp.reduce(list(table.values()))
    return {node: np.exp(row - whole) for node, row in table.items()}


def choices(own: dict[ContextNode, np.ndarray]) -> dict[str, list[float]]:
    """By threshold, how many contexts the oracle evaluates, and the mean and the worst error of a byte."""
    subtree = {node: row.copy() for node, row in own.items()}
    for node in sorted(own, key=lambda node: -node.depth):
        if node.parent in subtree:
            subtree[node.parent] += subtree[node]
    found = {}
    for threshold in THRESHOLDS:
        chosen = [node for node, row in subtree.items() if row.max() > threshold]
        held = np.minimum(np.sum([own[node] for node in chosen], axis=0), 1.0)
        off = np.abs(np.diff(np.log(np.concatenate([[1.0], held]))))
        found[f"{threshold:g}"] = [len(chosen), float(off.mean()), float(off.max())]
    return found


def run(options: Options) -> Report:
    """Read what was asked for; report all that is known."""
    figures = measured("oracle", _measure, options)
    return report(figures, Figures(HERE / "figures" / "judged.json"))


async def _measure(session: Session, figures: Figures, wanted: list[str], resume: bool) -> None:
    first = session.llm.tokenizer.convert_tokens_to_ids(START)
    for name, (part, text) in texts().items():
        known = name in figures and figures[name]["text"] == digest(text)
        if part != REPORT or (wanted and name not in wanted) or (resume and known):
            continue
        found = choices(await shares(session.engine, text, first))
        figures.put(name, {"text": digest(text), "tokens": await session.tokens(text), **found})
        print(name, found[f"{THRESHOLDS[-1]:g}"], flush=True)
        session.engine.clear_cache()


def report(figures: Figures, judged: Figures) -> Report:
    """The oracle at each threshold, and the default rule."""
    table = Table(["", "contexts a token", "median of the means", "≤ 5e-4", "≤ 3e-3", "worst byte ≤ 0.05"])
    rows = {name: figures[name] for name in texts() if name in figures}

    def add(title: str, contexts: list[float], means: list[float], worst: list[float]) -> None:
        counts = [sum(m <= 5e-4 for m in means), sum(m <= 3e-3 for m in means), sum(w <= 0.05 for w in worst)]
        table.rows.append([title, f"{np.mean(contexts):.1f}", f"{np.median(means):.1e}", *map(str, counts)])

    for threshold in THRESHOLDS:
        one = [(row[f"{threshold:g}"], row["tokens"]) for row in rows.values()]
        add(
            f"an oracle, above {threshold:g}",
            [contexts / tokens for (contexts, _, _), tokens in one],
            [mean for (_, mean, _), _ in one],
            [worst for (_, _, worst), _ in one],
        )
    ours = [(judged[name + SUFFIX][DEFAULT], judged[name + SUFFIX]["tokens"]) for name in rows]
    add(
        "the default",
        [row["contexts"] / tokens for row, tokens in ours],
        [row["mean"] for row, _ in ours],
        [row["worst"] for row, _ in ours],
    )
    return Report(
        title=f"How few contexts an oracle needs, {len(rows)} texts as documents",
        machine=[f"{hardware()}; {versions(package_versions(Clock()))}"],
        table=table,
        notes=[
            f"SmolLM2-135M-Instruct; of what {WHOLE.words} evaluates, an oracle evaluates the contexts "
            "that ever come to hold so large a share, with what went on from them",
            "mean and worst |Δ log p| of a byte, with hindsight; how many of the texts are within a bound",
        ],
        missed=[],
    )
