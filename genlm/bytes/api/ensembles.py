"""Models made of models, as methods of `ByteLM` and `AsyncByteLM`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from genlm.bytes.errors import bad_type, bad_value, names_checked
from genlm.bytes.util.numbers import real_number

if TYPE_CHECKING:
    from genlm.bytes.ensemble import Operation

__all__ = ["Ensembles"]


@names_checked()
class Ensembles:
    """Ways to make one byte-level model of several, with whatever tokenizers.

    Each takes `contexts`: what stands before the text for each member, as a prompt of `complete`; the text
    itself is the same for all.
    """

    @classmethod
    @abstractmethod
    def _together(cls, members: Sequence[Self], rule: Operation, contexts: Any, floor: float) -> Any:
        """Some members as one."""

    @classmethod
    def ensemble(
        cls,
        members: Sequence[Self],
        op: str | float = "prod",
        weights: Sequence[float] | None = None,
        *,
        contexts: Sequence[Any] | None = None,
        floor: float = 0.0,
    ) -> Self:
        """Several models as one, by an operation on their distributions of the next byte.

        Args:
            members: the models; one may stand there several times, with different `contexts`.
            op: `"prod"`, the weighted geometric mean: what all hold for likely. `"sum"`, the weighted mean
                at each byte. `"mixture"`, the weighted mean of the distributions over strings: whoever
                predicted the text better has more to say. `"min"`, `"max"`, `"harmonic"`; or a number, the
                power of a power mean.
            weights: one for each member; equal by default. For `"prod"` exponents, by default 1 / n: those
                that sum to more sharpen, negative ones divide. For others shares. See
                `genlm.bytes.ensemble.operation`.
            contexts: see the class.
            floor: mix so much of a uniform distribution into each member's, so that none alone can forbid a
                byte. Not for `"mixture"`.

        Raises:
            ValueError: no such operation, weights that mean nothing there, another number of weights or
                contexts than of members.
            TypeError: a member that is no model of this class.
        """
        from genlm.bytes.ensemble import operation

        found = _checked(cls, members)
        rule = operation(op, len(found), weights)
        if not isinstance(floor, int | float) or not 0.0 <= floor < 1.0:
            raise bad_value("floor", floor, "must be at least 0 and below 1")
        if floor and rule.stringwise:
            raise bad_value(
                "floor", floor, "a mixture of strings has none", "What any member can write, it can."
            )
        made: Self = cls._together(found, rule, contexts, floor)
        return made

    @classmethod
    def proxy_tuned(
        cls,
        base: Self,
        expert: Self,
        antiexpert: Self,
        alpha: float = 1.0,
        *,
        contexts: Sequence[Any] | None = None,
    ) -> Self:
        """A model as if it had been tuned as a small one was: `base * (expert / antiexpert) ** alpha`.

        (Liu et al., arXiv 2401.08565; here for models with any tokenizers.)

        Args:
            base: the model to be tuned.
            expert: a tuned small one.
            antiexpert: the same one untuned.
            alpha: how much of the difference to take.
            contexts: see the class; for the three.
        """
        from genlm.bytes.ensemble.operations import Product

        weight = real_number("alpha", alpha)
        made: Self = cls._together(
            _checked(cls, [base, expert, antiexpert]), Product([1.0, weight, -weight]), contexts, 0.0
        )
        return made

    @classmethod
    def contrastive(
        cls, expert: Self, amateur: Self, plausibility: float = 0.1, *, contexts: Sequence[Any] | None = None
    ) -> Self:
        """What an expert prefers to an amateur: `expert / amateur`, among the bytes that the expert holds for
        at least `plausibility` times as probable as its likeliest. (Li et al., arXiv 2210.15097.)

        Args:
            expert: the model.
            amateur: a worse one.
            plausibility: above 0 and at most 1.
            contexts: see the class; for the two.
        """
        from genlm.bytes.ensemble.operations import Contrastive

        if not 0.0 < real_number("plausibility", plausibility) <= 1.0:
            raise bad_value("plausibility", plausibility, "must be above 0 and at most 1")
        made: Self = cls._together(_checked(cls, [expert, amateur]), Contrastive(plausibility), contexts, 0.0)
        return made

    @classmethod
    def anchored(
        cls, safe: Self, risky: Self, budget: float = 0.1, *, contexts: Sequence[Any] | None = None
    ) -> Self:
        """A model that goes no further from a safe one than a budget allows.

        At each byte the distribution nearest the risky one, in KL divergence, among those whose divergence
        from the safe one is at most the budget (anchored decoding, arXiv 2602.07120).

        Args:
            safe: the model that must not be left far.
            risky: the model that is wanted.
            budget: nats a byte.
            contexts: see the class; for the two.
        """
        from genlm.bytes.ensemble.operations import Anchored

        if not real_number("budget", budget) >= 0.0:
            raise bad_value("budget", budget, "must be at least 0 nats")
        made: Self = cls._together(_checked(cls, [safe, risky]), Anchored(budget), contexts, 0.0)
        return made


def _checked(cls: type, members: Any) -> list[Any]:
    if isinstance(members, cls) or not isinstance(members, Sequence):
        raise bad_type("members", members, f"must be a list of {cls.__name__}s")
    if not members:
        raise bad_value("members", members, "must be at least one")
    for i, member in enumerate(members):
        if not isinstance(member, cls):
            raise bad_type(f"members[{i}]", member, f"must be a {cls.__name__}")
    return list(members)
