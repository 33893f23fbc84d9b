"""How often a text that is cut goes on as it would have: with healing, without, and by `transformers`.

The texts are the model's own: `transformers.generate` continues 20 beginnings of prose and code greedily,
from the tokenizer's tokens. Each is cut at 15 places of what was generated, and completed greedily from
there. The completion restores the text if it agrees with it to the end of the word that was cut, and one
byte more, which tells that the word ends there; where no word was cut, to the end of the next word or sign.
"""

from __future__ import annotations

import json
import random
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from common.machine import hardware, versions
from common.options import Options
from common.peers import HERE
from common.results import Report, Table
from common.worker import Clock
from common.worker import versions as package_versions

from genlm.bytes import ByteLM
from genlm.bytes.models import load_default_model

__all__ = ["run"]

CUTS = 15
NEW_TOKENS = 64
WORD = re.compile(rb"\w+|[^\w\s]+|\s+")
TARGET = 0.95

WAYS = ("healing", "healing, by byte", "no healing", "`generate`")
KINDS = ("inside a word", "inside an operator or a sign", "inside a character", "after a space", "elsewhere")


@dataclass(frozen=True)
class Cut:
    """A prompt, and the bytes that would have come next."""

    group: str
    kind: str
    prompt: bytes
    rest: bytes


@dataclass
class Score:
    """How many of the prompts of a group were restored, by each way."""

    cuts: int = 0
    restored: dict[str, int] = field(default_factory=lambda: dict.fromkeys(WAYS, 0))

    def cells(self) -> list[str]:
        return [str(self.cuts), *(f"{self.restored[way] / self.cuts:.0%}" for way in WAYS)]


def run(options: Options) -> Report:
    """Complete every cut text in every way, and count."""
    llm = load_default_model(progress=False)
    lm = ByteLM(llm)
    cuts = [cut for group, text, start in _texts(llm) for cut in _cuts(group, text, start)]
    ways: dict[str, Callable[[Cut], bytes]] = {
        "healing": lambda cut: _complete(lm, cut),
        "healing, by byte": lambda cut: _complete(lm, cut, unit="byte"),
        "no healing": lambda cut: _complete(lm, cut, token_healing=False),
        "`generate`": lambda cut: _generate(llm, cut),
    }
    scores = defaultdict[str, Score](Score)
    for cut in cuts:
        restored = {way: complete(cut).startswith(cut.rest) for way, complete in ways.items()}
        for name in (cut.group, f"— {cut.kind}", "all"):
            scores[name].cuts += 1
            for way, yes in restored.items():
                scores[name].restored[way] += yes
    names = ["prose", "code", *(f"— {kind}" for kind in KINDS), "all"]
    rows = [[name, *scores[name].cells(), ""] for name in names if name in scores]
    met = scores["all"].restored["healing"] / len(cuts) >= TARGET
    rows[-1][-1] = "pass" if met else "FAIL"
    lm.close()
    return Report(
        title=f"Texts cut at {len(cuts)} places: how often the cut word is restored",
        machine=[f"{hardware()}; {versions(package_versions(Clock()))}"],
        table=Table(["", "cuts", *WAYS, f"≥ {TARGET:.0%} healed"], rows),
        notes=[
            f"SmolLM2-135M-Instruct, float32, greedy; its own continuations of 20 beginnings "
            f"(`texts/beginnings.json`, {NEW_TOKENS} tokens by `transformers.generate`), {CUTS} cuts in each",
            "restored: the completion agrees with the text to the end of the word that was cut, and one byte "
            "more; where no word was cut, to the end of the next word or sign",
            "`generate`: from the tokens of the cut text, decoded in the ordinary way; a prompt that ends "
            "inside a character is cut back to the last whole one, and counted if that character is restored",
        ],
        missed=[] if met else ["cut words restored"],
    )


def _texts(llm: Any) -> list[tuple[str, bytes, int]]:
    """Group, text, and where the generated part begins."""
    found = []
    groups = json.loads((HERE / "texts" / "beginnings.json").read_text(encoding="utf-8"))
    for group, beginnings in groups.items():
        for beginning in beginnings:
            ids = llm.tokenizer.encode(beginning, add_special_tokens=False)
            new = _extend(llm, ids, NEW_TOKENS)
            text = b"".join(bytes(llm.byte_vocab[i].byte_string) for i in [*ids, *new])
            found.append((group, text, len(beginning.encode())))
    return found


def _cuts(group: str, text: bytes, start: int) -> list[Cut]:
    """Places drawn evenly, but for the end, where nothing is known of what comes next."""
    spans = [m.span() for m in WORD.finditer(text)]
    last = spans[-3][0] if len(spans) > 3 else start
    places = random.Random(len(text)).sample(range(start + 1, last), min(CUTS, last - start - 1))
    return [_cut(group, text, at, spans) for at in sorted(places)]


def _cut(group: str, text: bytes, at: int, spans: list[tuple[int, int]]) -> Cut:
    inside = next((s for s in spans if s[0] < at < s[1]), None)
    # Between two words: to the end of the next that is not blank.
    end = inside[1] if inside else next(e for s, e in spans if s >= at and text[s:e].strip())
    return Cut(group, _kind(text, at, inside), text[:at], text[at : end + 1])


def _kind(text: bytes, at: int, inside: tuple[int, int] | None) -> str:
    if text[at] & 0xC0 == 0x80:
        return "inside a character"
    if text[at - 1 : at].isspace():
        return "after a space"
    if inside is None:
        return "elsewhere"
    return "inside a word" if re.match(rb"\w", text[at : at + 1]) else "inside an operator or a sign"


def _complete(lm: ByteLM, cut: Cut, **how: Any) -> bytes:
    return bytes(lm.complete(cut.prompt, max_bytes=len(cut.rest), **how).bytes)


def _generate(llm: Any, cut: Cut) -> bytes:
    whole = cut.prompt.decode("utf-8", "ignore")
    missing = cut.prompt[len(whole.encode()) :]
    ids = llm.tokenizer.encode(whole, add_special_tokens=False)
    new = _extend(llm, ids, len(cut.rest) + len(missing))
    made = b"".join(bytes(llm.byte_vocab[i].byte_string) for i in new)
    return made.removeprefix(missing) if made.startswith(missing) else b""


def _extend(llm: Any, ids: list[int], tokens: int) -> list[int]:
    bos = [llm.tokenizer.bos_token_id]
    given = torch.tensor([[*bos, *ids]])
    out = llm.model.generate(
        given, attention_mask=torch.ones_like(given), max_new_tokens=min(tokens, NEW_TOKENS), do_sample=False
    )
    found: list[int] = out[0, given.shape[1] :].tolist()
    end = llm.tokenizer.eos_token_id
    return found[: found.index(end)] if end in found else found
