"""The posterior over the ways to cut a text: by enumeration, and as it is shown."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from cli_runner import Run, document, events, fine
from hypothesis import given
from hypothesis import strategies as st
from toy import EOS_STRING, TOY, ToyLM, vocabularies

from genlm.bytes import BeamParams, ByteLM
from genlm.bytes.errors import GenlmBytesError, ImpossibleByteError
from genlm.bytes.score import Cut
from genlm.bytes.viz import cuts_html, draw_cuts

EXACT = BeamParams(exact=True)


def cuts(words: list[bytes], text: bytes, before: tuple[int, ...] = ()) -> list[tuple[int, ...]]:
    """All ways to spell a text."""
    if not text:
        return [before]
    return [
        found
        for i, word in enumerate(words)
        if word and text.startswith(word)
        for found in cuts(words, text[len(word) :], (*before, i))
    ]


@given(
    words=vocabularies(most=4, longest=3),
    seed=st.integers(0, 99),
    text=st.lists(st.sampled_from(b"abc"), min_size=1, max_size=5).map(bytes),
)
def test_by_enumeration(words: list[bytes], seed: int, text: bytes) -> None:
    model = ToyLM(words, seed)
    found = ByteLM(model, EXACT).tokenizations(text)
    want = {
        ids: math.prod(model.probs(ids[:n])[token] for n, token in enumerate(ids))
        for ids in cuts(words, text)
    }
    total = sum(want.values())
    assert {cut.token_ids for cut in found} == want.keys()
    shares = [want[cut.token_ids] / total for cut in found]
    assert [cut.posterior for cut in found] == pytest.approx(shares, abs=1e-9)
    assert shares == sorted(shares, reverse=True) and found.logprob == pytest.approx(math.log(total))
    assert found.entropy == pytest.approx(-sum(p * math.log(p) for p in shares), abs=1e-9)
    assert all(b"".join(cut.pieces) == text for cut in found)
    ends = [
        sum(p for cut, p in zip(found, shares, strict=True) if at in cut.ends)
        for at in range(1, len(text) + 1)
    ]
    assert found.boundaries == pytest.approx(ends) and found.boundaries[-1] == pytest.approx(1.0)
    (own,) = [cut for cut in found if cut.canonical]  # without a tokenizer: the longest matches
    assert own is found.canonical and found.canonical_share == own.posterior and found.missing == 0.0
    for cut in found:
        places = cut.differs(own)
        assert (places == []) == (cut is own)
        for begin, end in places:
            assert {begin, end} - {0} <= cut.ends & own.ends


def test_after_a_context_and_in_a_batch() -> None:
    """The context is cut by the tokenizer; what comes after it begins a token."""
    model = ToyLM(TOY, 2)
    lm = ByteLM(model, EXACT, eos=[EOS_STRING])
    first, second = lm.tokenizations(["bc", "a"], "ab")
    assert {cut.token_ids for cut in first} == {(3, 5)}
    assert first.logprob == pytest.approx(math.log(model.probs((1,))[3] * model.probs((1, 3))[5]))
    assert {cut.token_ids for cut in second} == {(0,), (4,)}
    same = lm.tokenizations("bc", (1,))
    assert same.logprob == pytest.approx(first.logprob) and "1 cuts" in repr(same)


def test_the_tokenizers_own_is_there_whatever_the_beam_has_dropped() -> None:
    model = ToyLM([b"a", b"b", b"aab"], 0)
    found = ByteLM(model, BeamParams(K=1, prune_threshold=0.9)).tokenizations("aab")
    want = ByteLM(model, EXACT).tokenizations("aab")
    assert found.canonical is not None and found.canonical.token_ids == (2,)
    assert found.canonical.logprob == pytest.approx(want.canonical.logprob)


def test_where_cuts_differ() -> None:
    own = Cut((0, 1, 2), (b"the", b" ca", b"t"), 0.0, 0.9, True)
    other = Cut((0, 3, 4, 2), (b"the", b" c", b"a", b"t"), 0.0, 0.1, False)
    assert other.differs(own) == own.differs(other) == [(3, 6)] and own.differs(own) == []
    doubled = Cut((9, 1, 2), (b"the", b" ca", b"t"), 0.0, 0.1, False)  # the same spelling, another token
    assert doubled.differs(own) == [(0, 3)]


def test_the_tokenizers_own_is_shown_however_light_it_is() -> None:
    found = ByteLM(ToyLM(TOY, 1), EXACT).tokenizations("abca")
    assert not found[0].canonical and draw_cuts(found, 1).row_count == 2
    assert cuts_html(found, 1).count(">*<") == 1 == cuts_html(found, len(found)).count(">*<")
    assert draw_cuts(found, len(found)).row_count == len(found)


def test_errors() -> None:
    lm = ByteLM(ToyLM(TOY, 1), EXACT)
    with pytest.raises(ImpossibleByteError, match=r"`text` has byte 0x78 .* at offset 1"):
        lm.tokenizations("ax")
    with pytest.raises(GenlmBytesError, match="has no tokens of its own"):
        ByteLM.ensemble([lm, lm]).tokenizations("a")


class TestCommand:
    def test_a_text(self, run: Run, lm: ByteLM) -> None:
        want = lm.tokenizations("the an")
        found = document(run("tokenize", "the an", "--json", "--most", "2"))
        assert found["own_share"] == pytest.approx(want.canonical_share, abs=1e-3)
        assert found["entropy"] == pytest.approx(want.entropy, abs=1e-3) and len(found["likeliest"]) == min(
            2, len(want)
        )
        assert [t["id"] for t in found["likeliest"][0]["tokens"]] == list(want[0].token_ids)
        assert np.allclose(found["boundaries"], want.boundaries, atol=1e-3)
        shown = fine(run("tokenize", "the an")).decode()
        assert "The tokenizer's own cut has" in shown and "*" in shown

    def test_many(self, run: Run, tmp_path: Path) -> None:
        lines = tmp_path / "a.txt"
        lines.write_text("the an\nan\n")
        head, *rows, means = (
            fine(run("tokenize", "--file", str(lines), "--lines", "--chomp")).decode().splitlines()
        )
        assert (
            head.startswith("text\tbytes\ttokens")
            and len(rows) == 2
            and means.startswith("# 2 texts: mean own")
        )
        assert [one["id"] for one in events(run("tokenize", "--file", str(lines), "--lines", "--json"))] == [
            "1",
            "2",
        ]

    def test_a_page(self, run: Run, tmp_path: Path) -> None:
        """It escapes, needs nothing else, and is written over nothing but a page of ours."""
        page = tmp_path / "a.html"
        assert run("tokenize", "<b>the", "--html", str(page)).code == 0
        said = page.read_text()
        assert (
            "&lt;b" in said
            and "<b>the" not in said
            and "http" not in said
            and said.rstrip().endswith("</html>")
        )
        assert run("tokenize", "an", "--html", str(page)).code == 0
        page.write_text("mine")
        assert run("tokenize", "an", "--html", str(page)).code != 0 and page.read_text() == "mine"
        assert run("tokenize", "an", "--overwrite").code == 2
        assert run("tokenize", "an", "--model", "a", "--model", "b").code == 2
