"""What may come next, as methods of `AsyncByteLM`: words, symbols, trees."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from genlm.bytes.errors import bad_type, names_checked
from genlm.bytes.util.gather import gather
from genlm.bytes.util.numbers import whole_number

if TYPE_CHECKING:
    from genlm.bytes.byte_lm import BeamParams
    from genlm.bytes.generate import Read
    from genlm.bytes.predict import CharPredictions, Expansion, WordPredictions

__all__ = ["Predicting"]

T = TypeVar("T")

MOST_CONTEXTS = 256  # genlm.bytes.predict.budget.CONTEXTS, which importing this module should not bring


@names_checked()
class Predicting:
    """Asks what may come next; works on one model or several."""

    params: BeamParams
    _read: Callable[..., Awaitable[Read]]

    async def predict_words(
        self,
        context: Any = b"",
        n: int = 5,
        prefix: str | None = None,
        boundary: Literal["trailing"] = "trailing",
        budget: int | None = MOST_CONTEXTS,
        *,
        milliseconds: float | None = None,
        min_prob: float = 1e-3,
        word: Any = None,
        segmenter: Callable[[str], Iterable[str]] | None = None,
        method: str | None = None,
    ) -> WordPredictions | list[WordPredictions]:
        """The likeliest next words, each with its end; and the probability of everything else.

        A word's probability is that of the rest of its letters and then an end of it, given the context: an
        end is whatever does not belong to a word. So words and `remainder` sum to 1. If the context stops in
        a word, these are that word's completions, itself among them.

        Args:
            context: as for `complete`; or a list of contexts, which share forwards. A list with a token's id
                in it is one context, of parts.
            n: how many words.
            prefix: how the word begins that the context stops in: the context's last letters; "" if it stops
                in none. None finds out. With a `segmenter`, None is "".
            boundary: `"trailing"`: a word and its end. There is no other.
            budget: how many contexts of the model to look at; None for as many as it takes, which has no
                bound where many words are about equally likely.
            milliseconds: or how long to look, reading the context included. A forward that is under way is
                waited for.
            min_prob: words of less are not looked for, and not listed.
            word: what a word is: a regular expression, of which the longest match counts; or a function that
                says of a string whether a word begins so, such as `str.isalpha`. None:
                `genlm.bytes.predict.WORD`, letters, marks and apostrophes.
            segmenter: for scripts without spaces: a function from a text to its words. A word has ended once
                the segmenter cuts after it.
            method: how the context is read; see `complete`. None: `"tokenize"`, but `"beam"` for
                `BeamParams(exact=True)`.

        Returns:
            `WordPredictions`; a list of them for a list of contexts.

        Raises:
            ValueError: an argument out of range, a prefix that the context does not end with.
            TypeError: an argument of the wrong type.
        """
        from genlm.bytes.predict.budget import Budget
        from genlm.bytes.predict.word_rules import word_rule
        from genlm.bytes.predict.words import check_boundary, check_min_prob, predict_words

        count = _given("n", whole_number("n", n, 1))
        check_boundary(boundary)
        least = check_min_prob(min_prob)
        rule = word_rule(word, segmenter)
        Budget.of(budget, milliseconds)

        async def one(single: Any) -> WordPredictions:
            limit = Budget.of(budget, milliseconds)
            read = await self._read_for(single, method)
            return await predict_words(read.beam, read.text, count, prefix, rule, least, limit)

        return await _each(context, one)

    async def predict_chars(
        self,
        context: Any = b"",
        alphabet: str | Iterable[str] | None = None,
        floor: float = 0.0,
        *,
        space: str | None = None,
        fold: bool = True,
        method: str | None = None,
    ) -> CharPredictions | list[CharPredictions]:
        """Which symbol of a set comes next: natural log-probabilities that sum to 1 over the set.

        Args:
            context: as for `complete`; or a list of contexts, which share forwards.
            alphabet: the symbols, a string of characters or a list of strings; None: a to z, the apostrophe
                and the space.
            floor: the least probability of a symbol, so that none is ever out of reach.
            space: the symbol that stands for white space of any kind, `"_"` say.
            fold: whether a letter stands for its capital too.
            method: as for `predict_words`.

        Returns:
            `CharPredictions`, a mapping, likeliest first; a list of them for a list of contexts.

        Raises:
            ValueError: no symbols, symbols that are not apart, a floor that they cannot all have.
            TypeError: an argument of the wrong type.
            DeadEndError: none of them can come next, and there is no floor.
        """
        from genlm.bytes.predict.chars import ALPHABET, Symbols, predict_chars

        symbols = Symbols(ALPHABET if alphabet is None else alphabet, space, fold, floor)

        async def one(single: Any) -> CharPredictions:
            read = await self._read_for(single, method)
            return await predict_chars(read.beam, read.text, symbols)

        return await _each(context, one)

    async def expand(
        self,
        context: Any = b"",
        min_prob: float = 0.01,
        depth: int = 8,
        unit: Literal["byte", "char"] = "byte",
        *,
        budget: int | None = MOST_CONTEXTS,
        milliseconds: float | None = None,
        method: str | None = None,
    ) -> Expansion | list[Expansion]:
        """The tree of what may come next, each node with its part of the unit interval, as Dasher draws it.

        Args:
            context: as for `complete`; or a list of contexts, which share forwards.
            min_prob: the least probability of a node, given the context.
            depth: the most bytes or characters.
            unit: what a node is.
            budget: as for `predict_words`; where it is spent, nodes have no children yet.
            milliseconds: as for `predict_words`.
            method: as for `predict_words`.

        Returns:
            The root, an `Expansion`; a list of them for a list of contexts.

        Raises:
            ValueError: an argument out of range.
            TypeError: an argument of the wrong type.
        """
        from genlm.bytes.predict.budget import Budget
        from genlm.bytes.predict.tree import check_expansion, expand

        most = check_expansion(min_prob, depth, unit)
        Budget.of(budget, milliseconds)

        async def one(single: Any) -> Expansion:
            limit = Budget.of(budget, milliseconds)
            read = await self._read_for(single, method)
            return await expand(read.beam, read.text, min_prob, most, unit, limit)

        return await _each(context, one)

    async def _read_for(self, context: Any, method: str | None) -> Read:
        if method is None:
            method = "beam" if self.params.exact else "tokenize"
        found: Read = await self._recent.read(self._read, context, method)
        return found

    @cached_property
    def _recent(self) -> Any:
        from genlm.bytes.predict.typing_on import Recent

        return Recent()


async def _each(context: Any, one: Callable[[Any], Coroutine[Any, Any, T]]) -> T | list[T]:
    from genlm.bytes.prompt import is_batch

    return await gather(map(one, context)) if is_batch(context) else await one(context)


def _given(name: str, value: int | None) -> int:
    if value is None:
        raise bad_type(name, value, "must be an integer of at least 1")
    return value
