"""The definitions, by brute force over all segmentations, in float64. Slow, obvious, for toys only.

A text is a sequence of symbols: byte values, and atomic units (`bytes`). Its first `plain` symbols were
read as plain text: tokens that end among them count whatever they spell. A token that ends an EOS
string later on ends the sequence instead.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from toy import ToyLM

Symbols = Sequence[int | bytes]


class Brute:
    def __init__(
        self,
        lm: ToyLM,
        eos: Collection[bytes] = (),
        units: Collection[bytes] = (),
        start: Sequence[int] | None = None,
    ) -> None:
        self.lm = lm
        self.eos = {t.token_id for t in lm.byte_vocab if bytes(t) in set(eos)}
        self.spelling = {
            t.token_id: ((bytes(t),) if bytes(t) in set(units) else tuple(bytes(t)))
            for t in lm.byte_vocab
            if len(bytes(t)) and t.token_id < lm.size
        }
        self.bytes = {b for token in lm.byte_vocab for b in bytes(token)}
        default = [i for i in (lm.bos, lm.eos) if i is not None][:1]
        self.start = tuple(default if start is None else start)

    def counts(self, context: tuple[int, ...]) -> bool:
        """Whether covers that begin with these tokens, those of `start` first, are summed."""
        return True

    def prefix(self, text: Symbols, plain: int = 0) -> float:
        """Probability that the model's text begins with `text`."""
        return self._cover(self.start, tuple(text), plain, 0)

    def _cover(self, context: tuple[int, ...], text: tuple[int | bytes, ...], plain: int, at: int) -> float:
        if at == len(text):
            return 1.0
        p, total = self.lm.probs(context), 0.0
        for token, symbols in self.spelling.items():
            end = at + len(symbols)
            if token in self.eos and end > plain:
                continue
            if not self.counts((*context, token)):
                continue
            if end >= len(text):
                if symbols[: len(text) - at] == text[at:]:
                    total += p[token]
            elif symbols == text[at:end]:
                total += p[token] * self._cover((*context, token), text, plain, end)
        return total

    def ended(self, text: Symbols, plain: int = 0) -> float:
        """Probability that the model's text is exactly `text` and then the end."""
        return self._ended(self.start, tuple(text), plain, 0)

    def _ended(self, context: tuple[int, ...], text: tuple[int | bytes, ...], plain: int, at: int) -> float:
        p = self.lm.probs(context)
        if at == len(text):
            ends = [token for token in self.eos if token < len(p) and self.counts((*context, token))]
            return float(sum(p[token] for token in ends))
        total = 0.0
        for token, symbols in self.spelling.items():
            end = at + len(symbols)
            if token in self.eos and end > plain:
                continue
            if end <= len(text) and symbols == text[at:end] and self.counts((*context, token)):
                total += p[token] * self._ended((*context, token), text, plain, end)
        return total

    def next(self, text: Symbols, plain: int = 0, units: Collection[bytes] = ()) -> dict[int | bytes, float]:
        """The distribution of the next symbol, 257 being the end."""
        mass: dict[int | bytes, float] = {
            s: self.prefix([*text, s], plain) for s in [*sorted(self.bytes), *sorted(units)]
        }
        mass[257] = self.ended(text, plain)
        total = sum(mass.values())
        return {s: m / total for s, m in mass.items()}
