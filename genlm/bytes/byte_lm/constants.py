"""The numbers of the rule with a tolerance (`tolerance.py`), each with the measurement that chose it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["USUAL", "ToleranceConstants"]


@dataclass(frozen=True, slots=True)
class ToleranceConstants:
    """What `ToleranceRule` goes by, beside the tolerance.

    They decide which hypotheses are evaluated and when, and so how many contexts an answer of some accuracy
    takes; what each evaluated hypothesis weighs does not depend on them. Where nothing else is said, measured
    with SmolLM2-135M on paragraphs that are not those of `docs/exactness.md`.
    """

    common_boundary_share: float = 0.3
    """Share of the beam whose tokens end at a place, from which that place is a common boundary: there
    deferred hypotheses are taken to be aligned with the others."""

    inflation: float = 250.0
    """What an unaligned hypothesis's estimate by the vocabulary (`prior.py`) is multiplied by. The median of
    the truth is e^-7 of the beam's own, since most of them die within a few bytes; some have 1, "http:"
    before "//" among them. 2000 finds those sooner, for 7 % more contexts and an error a twelfth smaller; 200
    finds the `const` of a line of JavaScript too late, and loses 16 nats there."""

    damping: float = 0.95
    """Exponent `b` of the other bound on that estimate, `sqrt(e) p ** b`, with `p` what the beam gave the
    same bytes."""

    damping_offset: float = 0.5
    """Natural log of that bound's factor."""

    min_symbol_prob: float = 1e-4
    """What a symbol counts at least for deferred hypotheses: where it surprises the beam more, they gain on
    it."""

    unaligned_margin: float = 30.0
    """How many times the tolerance an extension must weigh that ends inside a token of the others, to be
    evaluated before that token ends while nobody looks at the beam."""

    cousin_margin: float = 10.0
    """How many times the tolerance an unaligned one must weigh by what has come of its cousins
    (`cousins.py`), to be evaluated before the others' token ends. On `benchmarks/texts/judged/choose`, read
    as documents, 10 finds 7.1 nats of one text and 0.5 of the others, for 12 % more contexts (2 % after the
    marker of a chat), a third to a half more in Dutch. 3 finds 0.01 more of two, for one in twenty more."""

    first_batch: int = 8
    """Deferred hypotheses evaluated first where no other can read on; then twice as many, and so on: the
    number of forwards grows with the logarithm of how many there are."""

    batch_fill: int = 4
    """Where extensions are evaluated anyway, up to so many go out together, if they weigh at least `1 /
    batch_fill_factor` of what is asked for: one more context costs a twelfth of a forward
    (`benchmarks/RESULTS.md`). Over six of the paragraphs in `benchmarks/texts` that is 0.3 contexts a token
    more, a twentieth of the forwards fewer, and a tenth of the error less."""

    batch_fill_factor: float = 3.0
    """See `batch_fill`."""

    surprisal_trigger: float = 0.03
    """A symbol less likely than this to the beam makes it probe aligned hypotheses that were deferred of
    late, however little is expected of them: older boundaries are taken to matter no more, and where they do
    a surprise is what shows it. ("Photo|s" is deferred beside "Photos" at e^-8; the "y" that follows, e^-7 to
    the beam, makes it the heavier.) What was measured is in `docs/exactness.md`."""

    nats_per_probe: float = 15.0
    """How many are probed: the product of the surprisal and of the tolerance, both as natural logs, over
    this. That is one for every two nats at the default, and more where the tolerance is finer and more are of
    like weight. Those nearest to the tolerance are. Twice as many (7.6) take a tenth more contexts, and find
    nothing more in eight of the nine texts of `benchmarks/texts/judged/choose`; half as many (30) lose 4.5
    nats of one."""

    probe_window: int = 12
    """How many bytes ago those may have been deferred that are probed. Earlier ones are often heavier, and
    have been passed by many times."""

    max_deferred: int = 4096
    """How many aligned hypotheses are kept deferred, and as many unaligned; the lightest beyond are
    dropped."""

    drop_share: float = 1e-6
    """The part of the tolerance below which a hypothesis is dropped. Keeping one costs next to nothing; after
    a byte that surprises the beam by e^-12 what was a millionth before matters."""


USUAL = ToleranceConstants()
"""As measured."""
