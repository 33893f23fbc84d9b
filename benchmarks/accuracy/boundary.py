"""How often a text that is cut goes on as it would have: with healing, without, and by `transformers`.

The texts are the model's own: `transformers.generate` continues ten beginnings each of prose and code, and
five each of Chinese, Japanese, German and Finnish, greedily, from the tokenizer's tokens. Each is cut at 15
places of what was generated, between any two bytes, and completed greedily from there. The completion
restores the text if it agrees with it to the end of the word that was cut, and one character more, which
tells that the word ends there; where no word was cut, to the end of the next word or sign, and one more.
Where no spaces stand between words, in Chinese and Japanese, a character is a word.

With `--over-http`, a server is asked for the same in place of the other ways: it must restore as many.
"""

from __future__ import annotations

import json
import random
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import regex
import torch
from common.machine import hardware, versions
from common.options import Options
from common.peers import HERE
from common.results import Report, Table
from common.worker import Clock
from common.worker import versions as package_versions
from serving.server import Served

from genlm.bytes import ByteLM
from genlm.bytes.models import load_default_model

__all__ = ["run"]

CUTS = 15
NEW_TOKENS = 64
ALONE = r"[\p{Han}\p{Hiragana}\p{Katakana}ー]"
WORD = regex.compile(rf"{ALONE}|(?:(?!{ALONE})\w)+|[^\w\s]+|\s+")
TARGET = 0.95

HEALING, HTTP = "healing", "over HTTP"
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
    restored: Counter[str] = field(default_factory=Counter)

    def cells(self, ways: Iterable[str]) -> list[str]:
        return [str(self.cuts), *(f"{self.restored[way] / self.cuts:.0%}" for way in ways)]


def run(options: Options) -> Report:
    """Complete every cut text in every way, and count."""
    llm = load_default_model(progress=False)
    with ByteLM(llm) as lm, _ways(llm, lm, options.over_http) as ways:
        return _counted(llm, ways, options)


@contextmanager
def _ways(llm: Any, lm: ByteLM, over_http: bool) -> Iterator[dict[str, Callable[[Cut], bytes]]]:
    ways: dict[str, Callable[[Cut], bytes]] = {HEALING: lambda cut: _complete(lm, cut)}
    if over_http:
        with Served() as server:
            yield {**ways, HTTP: lambda cut: _asked(server.url, llm, cut)}
        return
    yield {
        **ways,
        "healing, by byte": lambda cut: _complete(lm, cut, unit="byte"),
        "no healing": lambda cut: _complete(lm, cut, token_healing=False),
        "`generate`": lambda cut: _generate(llm, cut),
    }


def _counted(llm: Any, ways: dict[str, Callable[[Cut], bytes]], options: Options) -> Report:
    asked = [name for name in options.rows.split(",") if name]
    texts = _texts(llm, asked, options.scale)
    cuts = [cut for group, text, start in texts for cut in _cuts(group, text, start)]
    groups = list(dict.fromkeys(cut.group for cut in cuts))
    scores = defaultdict[str, Score](Score)
    for cut in cuts:
        restored = {way: complete(cut).startswith(cut.rest) for way, complete in ways.items()}
        for name in (cut.group, f"— {cut.kind}", "all"):
            scores[name].cuts += 1
            for way, yes in restored.items():
                scores[name].restored[way] += yes
    names = [*groups, *(f"— {kind}" for kind in KINDS), "all"]
    rows = [[name, *scores[name].cells(ways), ""] for name in names if name in scores]
    restored = scores["all"].restored
    met = restored[HEALING] / len(cuts) >= TARGET and restored[HTTP] in (0, restored[HEALING])
    rows[-1][-1] = "pass" if met else "FAIL"
    return Report(
        title=f"Texts cut at {len(cuts)} places: how often the cut word is restored",
        machine=[f"{hardware()}; {versions(package_versions(Clock()))}"],
        table=Table(["", "cuts", *ways, f"≥ {TARGET:.0%} healed"], rows),
        notes=[
            f"SmolLM2-135M-Instruct, float32, greedy; its own continuations of {len(texts)} beginnings "
            f"(`texts/beginnings.json`, {NEW_TOKENS} tokens by `transformers.generate`), {CUTS} cuts in each",
            "restored: the completion agrees with the text to the end of the word that was cut, and one "
            "character more; where no word was cut, to the end of the next word or sign, and one more. In "
            "Chinese and Japanese a character is a word",
            "over HTTP: `/v1/completions` of `genlm-bytes serve`, in a process of its own; prompts that end "
            f"inside a character as token ids. {restored[HTTP]} and {restored[HEALING]} restored"
            if HTTP in ways
            else "`generate`: from the tokens of the cut text, decoded in the ordinary way; a prompt that "
            "ends inside a character is cut back to the last whole one, and counted if that character is "
            "restored",
        ],
        missed=[] if met else ["cut words restored"],
        variant="".join(f"-{word}" for word in (*asked, *(["http"] if HTTP in ways else []))),
    )


def _texts(llm: Any, asked: list[str], scale: float) -> list[tuple[str, bytes, int]]:
    """Group, text, and where the generated part begins."""
    found = []
    groups = json.loads((HERE / "texts" / "beginnings.json").read_text(encoding="utf-8"))
    if unknown := set(asked) - set(groups):
        raise SystemExit(f"no texts {', '.join(sorted(unknown))}; there are {', '.join(groups)}")
    for group in asked or groups:
        for beginning in groups[group][: max(1, round(scale * len(groups[group])))]:
            ids = llm.tokenizer.encode(beginning, add_special_tokens=False)
            new = _extend(llm, ids, NEW_TOKENS)
            text = b"".join(bytes(llm.byte_vocab[i].byte_string) for i in [*ids, *new])
            found.append((group, text, len(beginning.encode())))
    return found


def _cuts(group: str, text: bytes, start: int) -> list[Cut]:
    """Places drawn evenly, but for the end, where nothing is known of what comes next."""
    whole = _readable(text)
    at = [0, *accumulate(len(char.encode()) for char in whole)]
    spans = [(at[m.start()], at[m.end()]) for m in WORD.finditer(whole)]
    last = spans[-3][0] if len(spans) > 3 else start
    places = random.Random(len(text)).sample(range(start + 1, last), max(0, min(CUTS, last - start - 1)))
    return [_cut(group, text, place, spans, at) for place in sorted(places)]


def _readable(text: bytes) -> str:
    """A text up to where it stops being one."""
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        return text[: error.start].decode()


def _cut(group: str, text: bytes, at: int, spans: list[tuple[int, int]], starts: list[int]) -> Cut:
    inside = next((s for s in spans if s[0] < at < s[1]), None)
    # Between two words: to the end of the next that is not blank.
    end = inside[1] if inside else next(e for s, e in spans if s >= at and text[s:e].strip())
    one_more = starts[starts.index(end) + 1]
    return Cut(group, _kind(text, at, inside), text[:at], text[at:one_more])


def _kind(text: bytes, at: int, inside: tuple[int, int] | None) -> str:
    if text[at] & 0xC0 == 0x80:
        return "inside a character"
    if text[at - 1 : at].isspace():
        return "after a space"
    if inside is None:
        return "elsewhere"
    word = regex.match(r"\w", text[at : inside[1]].decode())
    return "inside a word" if word else "inside an operator or a sign"


def _complete(lm: ByteLM, cut: Cut, **how: Any) -> bytes:
    return bytes(lm.complete(cut.prompt, max_bytes=len(cut.rest), **how).bytes)


def _asked(url: str, llm: Any, cut: Cut) -> bytes:
    """By a server; a prompt that ends inside a character, which JSON has not, as token ids."""
    whole = cut.prompt.decode("utf-8", "ignore")
    prompt: Any = whole
    if missing := cut.prompt[len(whole.encode()) :]:
        of_byte = {bytes(token.byte_string): token.token_id for token in llm.byte_vocab}
        prompt = llm.tokenizer.encode(whole, add_special_tokens=False)
        prompt += [of_byte[bytes([byte])] for byte in missing]
    asked = {"prompt": prompt, "max_bytes": len(cut.rest), "temperature": 0, "logprobs": 0}
    request = urllib.request.Request(f"{url}/v1/completions", json.dumps(asked).encode())
    with urllib.request.urlopen(request) as response:
        (choice,) = json.load(response)["choices"]
    return bytes(byte for piece in choice["logprobs"]["bytes"] for byte in piece)


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
