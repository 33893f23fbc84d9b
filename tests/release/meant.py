"""What differs from release 0.2.0 and is meant to. Whatever else differs fails the test.

Each entry says why, and tells its difference from others as narrowly as it can: by the step, the arguments
and what came of it on both sides. An entry that no program needs any more fails the test, too.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from release.compare import Difference, Meant, gap, references
from release.programs import Program

__all__ = ["MEANT"]

MEANT: list[Meant] = []


def meant(
    reason: str,
) -> Callable[[Callable[[Difference, Program], bool]], Callable[[Difference, Program], bool]]:
    def add(when: Callable[[Difference, Program], bool]) -> Callable[[Difference, Program], bool]:
        MEANT.append(Meant(reason, when))
        return when

    return add


def args(d: Difference) -> list[Any]:
    """The arguments of a step; of an operation those after the object."""
    kind, *rest = d.step["do"]
    return list(rest[1][1:] if kind == "op" else rest[2])


def raised(outcome: Any, *kinds: str) -> bool:
    return "error" in outcome and set(kinds) <= set(outcome["error"])


def ours_says(d: Difference, *words: str) -> bool:
    """Whether ours is an error of the house: it names the argument and the rule."""
    return "error" in d.ours and all(word in d.ours["message"] for word in words)


def steps_before(d: Difference, p: Program) -> str:
    return json.dumps(p.steps[: d.number + 1])


def with_ends(d: Difference, p: Program) -> bool:
    """Whether some strings end a sequence in this program."""
    return '"eos_byte_strings": [{"bytes"' in steps_before(d, p)


# -- faults of the release ---------------------------------------------------------------------------------


@meant("candidates of probability zero: the release keeps them, with a weight of -inf, and makes NaN of them")
def impossible_candidates(d: Difference, p: Program) -> bool:
    if not isinstance(d.theirs.get("value"), dict):
        return False
    theirs, ours = possible(d.theirs["value"]), possible(d.ours.get("value"))
    if theirs == d.theirs["value"] and ours == d.ours.get("value"):
        return False
    beam = theirs.get("ByteBeamState") if theirs else None
    if beam and {"str": "states"} in [k for k, _ in beam["dict"]] and field(beam, "states") == {"list": []}:
        return True  # ours heals where nothing else is left, or is empty
    return gap(theirs, ours) == ""


def possible(x: Any) -> Any:
    """A shown value without candidates of weight -inf."""
    if isinstance(x, dict):
        if "LazyTrieState" in x and field(x["LazyTrieState"], "weight") == {"float": "-inf"}:
            return None
        return {k: possible(v) for k, v in x.items()}
    if isinstance(x, list):
        if x and all(isinstance(y, dict) and set(y) == {"dict"} for y in x):
            return [y for y in x if field(y, "weight") != {"float": "-inf"}]
        kept = [possible(y) for y in x]
        return [new for new, old in zip(kept, x, strict=True) if new is not None or old is None]
    return x


def field(shown: Any, name: str) -> Any:
    return next((v for k, v in shown["dict"] if k == {"str": name}), None)


@meant("switching the mode, as reading a known text does, keeps masses computed for the other mode")
def masses_of_the_other_mode(d: Difference, p: Program) -> bool:
    switched = any(f'"{name}"' in steps_before(d, p) for name in ("prefill", "with_mode", "greedy", "sample"))
    return switched and with_ends(d, p)


@meant("where pruning leaves nothing to go on with, the next byte has NaN for a log-probability")
def nothing_left(d: Difference, p: Program) -> bool:
    return d.member == "logp_next" and '"nan"' in json.dumps(d.theirs) and '"nan"' not in json.dumps(d.ours)


@meant("`greedy` and `sample` fail where the end is drawn, or where nothing can follow")
def the_end_is_drawn(d: Difference, p: Program) -> bool:
    return d.member in ("greedy", "sample") and "error" in d.theirs and "value" in d.ours


@meant("a candidate that has read the end of a sequence cannot be shown: its symbol, 257, is no byte")
def the_end_is_shown(d: Difference, p: Program) -> bool:
    return d.member == "repr" and raised(d.theirs, "ValueError") and "EOS" in str(d.ours.get("value"))


@meant("`max_context_length` is lost after the first `<<`")
def forgotten_limit(d: Difference, p: Program) -> bool:
    return d.what.startswith(".value.StatefulTokenizedLM.list[1]: None and {'int'")


@meant("a chart's zero other than 0 is added to every entry of a sum, a product or a projection")
def zero_is_added(d: Difference, p: Program) -> bool:
    made = [step["do"] for step in p.steps[: d.number]]
    zeros = [do[3][0] for do in made if do[0] == "call" and do[2] is None and len(do[3]) == 2]
    return (
        d.member in ("add", "mul", "project")
        and "Chart" in d.what
        and any(zero not in (0, 0.0) for zero in zeros)
    )


@meant("a mapping times a chart has the keys of the chart: what it lacks is zero, not a KeyError")
def chart_times_mapping(d: Difference, p: Program) -> bool:
    return d.member == "mul" and raised(d.theirs, "KeyError") and "value" in d.ours


@meant("a comparison of two empty charts is a table with columns")
def empty_table(d: Difference, p: Program) -> bool:
    return d.member == "compare" and d.theirs["value"] == {"frame": [{"list": []}, []]}


@meant("ids with holes in a vocabulary are an IndexError")
def holes(d: Difference, p: Program) -> bool:
    return (
        d.member == "__init__"
        and raised(d.theirs, "IndexError")
        and '"token": [7,' in str(json.dumps(d.step))
    )


# -- modes -------------------------------------------------------------------------------------------------


@meant("a mode by its value: the release takes every string for `WITHOUT_EOS`")
def mode_by_value(d: Difference, p: Program) -> bool:
    return d.member.endswith("weight_sum") and "with_eos" in args(d) and "value" in d.ours


@meant("of several tokens of one spelling, healing tries the likeliest first")
def likeliest_spelling(d: Difference, p: Program) -> bool:
    theirs, ours = (outcome.get("value") or {} for outcome in (d.theirs, d.ours))
    return (
        d.member in ("try_heal", "lshift", "prefill", "greedy", "sample")
        and "LazyTrieState" in theirs
        and "LazyTrieState" in ours
        and spelled(theirs, p) == spelled(ours, p)
    )


def spelled(shown: Any, p: Program) -> Any:
    """The bytes of a candidate's tokens, one by one, and those after."""
    vocab = next(step["do"][1] for step in p.steps if step["do"][0] == "model")
    strings = dict(entry["token"] for entry in vocab)
    context = field(shown["LazyTrieState"], "context")["list"]
    return [strings[token["int"]] for token in context], field(shown["LazyTrieState"], "partial")


@meant("an unknown mode is an error")
def unknown_mode(d: Difference, p: Program) -> bool:
    return ours_says(d, "`mode` is", "must be TrieMode.WITHOUT_EOS or 'without_eos'")


# -- errors that name the argument, the value, the rule and the way out --------------------------------------


@meant("settings that mean nothing are refused")
def settings(d: Difference, p: Program) -> bool:
    return d.member == "__init__" and "BeamParams" in str(d.theirs) and ours_says(d, "`", "must be")


@meant("what is no symbol cannot be read: the release answers None")
def no_symbol(d: Difference, p: Program) -> bool:
    return (
        d.member == "lshift" and d.theirs.get("value", 0) is None and ours_says(d, "`b` is", "must be a byte")
    )


@meant("what is no symbol has no probability: the release indexes the list")
def no_entry(d: Difference, p: Program) -> bool:
    return d.member == "getitem" and ours_says(d, "`b` is", "must be a byte 0..255, None or 256")


@meant("what is no token id is a TypeError")
def no_token(d: Difference, p: Program) -> bool:
    return d.member == "lshift" and raised(d.ours, "TypeError") and ours_says(d, "`token[0]` is")


@meant("an entry of a vocabulary that is no token is a TypeError that says where")
def no_vocabulary(d: Difference, p: Program) -> bool:
    return raised(d.ours, "TypeError") and ours_says(d, "decode must contain Token objects")


@meant("arithmetic of a chart and something else is Python's TypeError")
def no_chart(d: Difference, p: Program) -> bool:
    return d.member in ("add", "mul") and raised(d.ours, "TypeError") and ours_says(d, "unsupported operand")


@meant("a known text that no candidate can read is an error that says where; the release has an empty beam")
def impossible_byte(d: Difference, p: Program) -> bool:
    return d.member in ("prefill", "greedy", "sample") and ours_says(d, "`bs` has byte", "at offset")


# -- more than there was ------------------------------------------------------------------------------


@meant("`children` and `node2prefix` are a list and a dict in all but type")
def no_builtin(d: Difference, p: Program) -> bool:
    if d.member != "isinstance":
        return False
    target = next(references(d.step["do"]))
    view = next(step["do"] for step in p.steps if step["as"] == target)
    return view[0] == "get" and view[2] in ("children", "node2prefix")


@meant("`word2leaf` finds a bare byte string that one token spells")
def bare_word(d: Difference, p: Program) -> bool:
    return d.member == "getitem" and raised(d.theirs, "KeyError") and "/EOT:" in str(d.ours.get("value"))


@meant("`eos_tokens` can be read under either name")
def older_name(d: Difference, p: Program) -> bool:
    return d.member == "eos_tokens" and d.theirs["value"] is None and set(d.ours["value"]) == {"set"}


@meant("settings have more fields")
def more_fields(d: Difference, p: Program) -> bool:
    return d.member == "repr" and ", tolerance=None, exact=False" in str(d.ours)


@meant("a distribution gives Python floats, whatever holds it")
def floats(d: Difference, p: Program) -> bool:
    shown = '{"tensor"' in steps_before(d, p) and "tensor" in d.what
    return d.member in ("getitem", "materialize", "pretty", "argmax", "top") and shown


@meant("a drawing takes weights as a list, too")
def drawn_list(d: Difference, p: Program) -> bool:
    return d.member == "visualize" and raised(d.theirs, "AttributeError") and "value" in d.ours


# -- names --------------------------------------------------------------------------------------------

PYTHONS_OWN = frozenset(
    """
    __abstractmethods__ __annotations__ __class_getitem__ __dataclass_fields__ __dataclass_params__ __del__
    __dict__ __doc__ __firstlineno__ __getattribute__ __match_args__ __module__ __new__ __post_init__
    __replace__ __sizeof__ __slotnames__ __slots__ __static_attributes__ __weakref__
    """.split()
)
"""Members that every class has, or every enum, dataclass or dict, by Python's own making."""

IMPORTED = {
    "genlm.bytes.byte_lm.heal:format_byte": "genlm.bytes.util",
}
"""Names that a module of the release imports for its own use, and where they are documented."""

SIGNATURES: dict[str, str] = {}
"""Signatures that no longer take all that they took."""

_STORAGE = "undocumented working storage of the release's sums"

ATTRIBUTES = {
    "TokenByteTrie.M": _STORAGE,
    "TokenByteTrie.M_no_eos": _STORAGE,
    "TokenByteTrie.M_with_eos": _STORAGE,
    "TokenByteTrie.src_indices": _STORAGE,
    "TokenByteTrie.dst_indices": _STORAGE,
    "TokenByteTrie.jump": _STORAGE,
    "TokenByteTrie.ordering": _STORAGE,
    "TokenByteTrie.token_ids": _STORAGE + "; ours has the ids in the order of the leaves",
}
"""Public members that no program compares, and why."""
