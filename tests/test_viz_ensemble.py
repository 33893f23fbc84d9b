"""What several models as one show: each member's say, in a terminal, as HTML, on the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cli_runner import Run, document, events, exact, fine
from test_ensemble import conditionals, lm
from test_viz import Checked, collect, draw
from toy import ToyLM

from genlm.bytes import BeamParams, ByteLM
from genlm.bytes.errors import InvalidValueError
from genlm.bytes.viz import beam_html, page_html, view_ensemble, walk

ANY = [*(bytes([b]) for b in range(256)), b"<e>"]
SYMBOLS = [b"a", b"b", b"c", None]


def said(one: ByteLM, text: bytes, byte: bytes | None) -> float:
    return float(conditionals(one, text)[SYMBOLS.index(byte)])


def test_each_member_at_every_byte() -> None:
    members = [lm(seed=1), lm([b"a", b"b", b"c", b"bc", b"<e>"], 2)]
    together = ByteLM.ensemble(members, "mixture", [0.25, 0.75])
    views = together.run(collect(walk(together.beam("a"), b"bc", top=4, names=["<one>"])))
    assert [view.text for view in views] == [b"", b"b", b"bc"] and views[0].logp == 0.0
    assert views[2].logp == pytest.approx(together.score("bc", "a").logprob)
    for at, view in enumerate(views):
        text = b"abc"[: 1 + at]
        assert [member.name for member in view.members] == ["<one>", "2"]
        shares = together.beam(text).shares
        assert [member.share for member in view.members] == pytest.approx(shares.tolist())
        assert {one.byte for one in view.following} == set(SYMBOLS)
        for i, following in enumerate(view.following):
            says = [member.says[i] for member in view.members]
            assert says == pytest.approx([said(one, text, following.byte) for one in members], abs=1e-9)
            assert following.p == pytest.approx(float(np.dot(shares, says)), abs=1e-9)
        assert view.members[0].beam is not None and view.members[0].beam.text == text
    drawn, page = draw(views[1]), Checked(page_html(views, "bc"))
    for name in ("together", "<one>", "share", "tokens"):
        assert name in drawn and name in page.text
    assert page.tags.count("section") == 3 and "one" not in page.tags
    assert f"{said(members[1], b'ab', views[1].following[0].byte):.4f}" in drawn
    assert "together" in Checked(together.beam("ab")._repr_html_()).text


def test_one_that_cannot_have_written_the_text() -> None:
    """`c` is no word of the other."""
    members = [lm(seed=1), lm([b"a", b"b", b"<e>"], 2)]
    together = ByteLM.ensemble(members, "sum")
    views = together.run(collect(walk(together.beam(), b"c", names=["first", "second"])))
    assert views[0].members[1].alive and not views[1].members[1].alive and views[1].members[1].beam is None
    for shown in (draw(views[1]), Checked(beam_html(views[1])).text):
        assert "cannot have written this" in shown
    both = ByteLM.ensemble(members, "min")
    assert both.run(collect(walk(both.beam(), b"a", top=0)))[1].following == ()
    with pytest.raises(InvalidValueError, match="byte 0x63 at offset 1 is impossible to the ensemble"):
        both.run(collect(walk(both.beam(), b"ac")))
    nothing = ByteLM.ensemble([lm([b"a", b"<e>"], 1), lm([b"b", b"<e>"], 2)])
    found = view_ensemble(nothing.run(nothing.beam() << 257))
    assert found.following == () and found.members[0].share == 0.5 and draw(found)
    assert view_ensemble(both.beam("a")).members[0].share is None


class TestCommands:
    two = ("--model", "A", "--model", "B", "--op", "sum", "--weights", "3,1")

    def test_next(self, run: Run) -> None:
        model = ToyLM(ANY, eos=256, seed=3)
        one = ByteLM(model, BeamParams(K=5))
        found = document(run("next", "a", *self.two, "--top", "3", "--json", model=model))
        assert found["models"] == ["A", "B"]
        for row in found["next"]:
            wanted = one.next("a")[257 if row.get("eos") else row["byte"]]
            assert row["logprobs"] == pytest.approx([wanted] * 2, abs=1e-6)
            assert row["logprob"] == pytest.approx(wanted, abs=1e-6)
        lines = fine(run("next", "a", *self.two, "--top", "3", model=model)).decode().splitlines()
        assert lines[0].split() == ["byte", "hex", "probability", "logprob", "A", "B"] and len(lines) == 4

    def test_next_characters(self, run: Run) -> None:
        """Of several bytes; the first is there already."""
        model = ToyLM(ANY, eos=256, seed=3)
        found = document(
            run("next", "-", *self.two, "--chars", "--top", "2", "--json", stdin=b"a\xc3", model=model)
        )
        for row in found["next"]:
            assert row["text"].encode()[:1] == b"\xc3"
            assert row["logprobs"] == pytest.approx([row["logprob"]] * 2, abs=1e-6)

    def test_watch(self, run: Run, tmp_path: Path) -> None:
        model = ToyLM(ANY, eos=256, seed=3)
        found = events(run("watch", "ab", *self.two, "--json", "--top", "2", model=model))
        assert [exact(event) for event in found] == [b"", b"a", b"ab"]
        for event in found:
            assert [member["model"] for member in event["members"]] == ["A", "B"]
            for i, one in enumerate(event["next"]):
                for member in event["members"]:
                    assert member["probabilities"][i] == pytest.approx(one["probability"])
                    assert member["alive"] and member["candidates"][0]["share"] == pytest.approx(1)
        assert found[1]["logprob"] == pytest.approx(ByteLM(model).score("a").logprob, abs=1e-6)
        shown = fine(run("watch", "a", *self.two, model=model)).decode()
        assert shown.count("together") == 2 and shown.count("A   logp") == 2
        page = tmp_path / "both.html"
        assert fine(run("watch", "a", *self.two, "--html", str(page), model=model)) == b""
        assert page.read_text(encoding="utf-8").count("<section") == 2
