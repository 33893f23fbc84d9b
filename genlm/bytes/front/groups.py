"""Scoring many texts group by group, so that the figures of a group depend on nothing but the group.

What shares a forward decides its round-off, some 1e-6 nats, and seldom whether a tokenization just counts. So
the same text scored among others, or after others, may differ in its last digits. Here the texts are cut into
groups of a fixed size, and each is scored by a model that has read nothing before (`AsyncByteLM.forget`).
Groups can then be scored in any order, by any of several machines of one kind, and come out as one machine
has them. The price: a context that all texts share is read once a group.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from genlm.bytes.errors import bad_type, bad_value
from genlm.bytes.front.lm import ByteLM
from genlm.bytes.score import Score, WordSurprisals

__all__ = ["GROUP", "Asked", "Result", "cut", "score_group", "score_groups"]

GROUP = 32
"""Texts a group: as many as a `Scorer` reads at the same time."""

Result = Score | WordSurprisals
PARTS = ("text", "context", "words", "spans")


@dataclass(frozen=True)
class Asked:
    """What is asked of each text.

    Attributes:
        what: `"bytes"`, a `Score` each; or `"words"`, the `WordSurprisals` of each.
        options: of `ByteLM.score`, or of `ByteLM.word_surprisal`; `context` is that of texts without their
            own.

    Raises:
        ValueError: another `what`; an option that belongs to the texts.
    """

    what: str = "bytes"
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.what not in ("bytes", "words"):
            raise bad_value("what", self.what, "must be 'bytes' or 'words'")
        for name in ("text", "texts", "words", "spans"):
            if name in self.options:
                rule = "each text has its own"
                instead = 'Give texts as {"text": …, "words": …, "spans": …}.'
                raise bad_value(name, self.options[name], rule, instead)


def score_groups(
    lm: ByteLM, items: Iterable[Any], asked: Asked, size: int = GROUP, first: int = 0
) -> Iterator[Result]:
    """The result for each text, in order, as the texts come.

    Args:
        lm: the model.
        items: texts, str or bytes; or mappings with `text` and, for that text, `context`, `words`, `spans`.
        asked: what is asked.
        size: texts a group.
        first: the number of the first text, for `WordSurprisal.text`.
    """
    for number, group in cut(items, size, first):
        yield from score_group(lm, group, asked, number)


def cut(items: Iterable[Any], size: int, first: int = 0) -> Iterator[tuple[int, list[Any]]]:
    """The groups, each with the number of its first text.

    Examples:
        >>> list(cut("abcde", 2))
        [(0, ['a', 'b']), (2, ['c', 'd']), (4, ['e'])]
    """
    rest = iter(items)
    while group := list(islice(rest, size)):
        yield first, group
        first += len(group)


def score_group(lm: ByteLM, items: Sequence[Any], asked: Asked, first: int = 0) -> list[Result]:
    """The result for each text of one group; see `score_groups`.

    Raises:
        TypeError: a text that is neither str nor bytes nor a mapping.
        ValueError: a mapping without `text`, or with what is not understood; as of `ByteLM.score` and
            `ByteLM.word_surprisal`.
    """
    parts = [_parts(item, first + i) for i, item in enumerate(items)]
    texts = [part["text"] for part in parts]
    options = dict(asked.options)
    shared = options.pop("context", b"")
    if any("context" in part for part in parts):
        options["context"] = [part.get("context", shared) for part in parts]
    else:
        options["context"] = shared
    lm.forget(reproducible=True)
    if asked.what == "bytes":
        found: Any = lm.score(texts, **options)
        return list(found)
    for name in ("words", "spans"):
        given = [part.get(name) for part in parts]
        if any(entry is not None for entry in given):
            options[name] = given
    rows = lm.word_surprisal(texts, **options)
    each: list[list[Any]] = [[] for _ in texts]
    for row in rows:
        each[row.text].append(dataclasses.replace(row, text=first + row.text))
    return [WordSurprisals(rows) for rows in each]


def _parts(item: Any, number: int) -> Mapping[str, Any]:
    if isinstance(item, str | bytes | bytearray | memoryview):
        return {"text": item}
    if not isinstance(item, Mapping):
        raise bad_type(f"texts[{number}]", item, "must be str or bytes, or a mapping with `text`")
    unknown = sorted(map(str, set(item) - set(PARTS)))
    if unknown or "text" not in item:
        rule = f"must have `text`, and nothing but {', '.join(f'`{part}`' for part in PARTS)}"
        raise bad_value(f"texts[{number}]", item, rule)
    return item
