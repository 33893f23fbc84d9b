"""What is shown of beams and of texts: in a terminal, as HTML, in one line."""

from __future__ import annotations

import ast
import io
import math
import re
import unicodedata
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from toy import EOS_STRING, TOY, ToyLM, ToyTokenizer

from genlm.bytes import BeamParams, ByteBeamState, ByteLM
from genlm.bytes.errors import InvalidValueError
from genlm.bytes.trie import TrieMode
from genlm.bytes.util import LazyByteProbs
from genlm.bytes.viz import (
    HeatPiece,
    beam_html,
    draw_beam,
    heat_foot,
    heat_head,
    heat_section,
    one_line,
    page_html,
    safe_text,
    share_text,
    view_beam,
    walk,
)

EXACT = BeamParams(exact=True, eos_byte_strings=[EOS_STRING])


def draw(view) -> str:
    console = Console(file=io.StringIO(), width=120, record=True)
    console.print(draw_beam(view))
    return console.export_text()


class TestText:
    @given(st.text())
    def test_nothing_is_left_that_a_terminal_obeys(self, text):
        for shown in (safe_text(text, keep=""), one_line(text.encode("utf-8", "replace"))):
            kinds = {unicodedata.category(c) for c in shown if c not in "\u200c\u200d"}
            assert not kinds & {"Cc", "Cf", "Cs", "Zl", "Zp"}

    @given(st.binary() | st.text().map(str.encode) | st.just("\x85␣ \\n\\x85".encode() + b"\x85"))
    def test_a_line_says_which_bytes(self, text):
        """Read back as a Python literal, it is the bytes again: no two texts look alike."""
        pattern = r"\\x([89a-f][0-9a-f])|(\\(?:x..|u.{4}|U.{8}|.))|(.)"
        units = [
            bytes([int(byte, 16)])
            if byte
            else (ast.literal_eval(f"'{escaped}'") if escaped else plain).encode()
            for byte, escaped, plain in re.findall(pattern, one_line(text).replace("␣", " "))
        ]
        assert b"".join(units) == text

    def test_ordinary_text_stays(self):
        text = "naïve 日本\u3000語 नमस्ते می\u200cخواهم 👩\u200d🚀\n\tend"
        assert safe_text(text) == text
        assert safe_text("a\x1b]0;title\x07\r\u202eb") == r"a\x1b]0;title\x07\r\u202eb"

    def test_shares(self):
        assert [share_text(p) for p in (1.0, 0.12345, 5e-5, 4e-5)] == ["1.0000", "0.1235", "0.0001", "4e-05"]


@pytest.fixture
def lm():
    with ByteLM(ToyLM(TOY, seed=3), EXACT) as lm:
        yield lm


class TestView:
    def test_candidates_of_the_toy(self, lm):
        """`ab` is `ab`, or `a` (of which there are two) and `b`, or the beginning of `abc`."""
        beam = lm.beam("ab")
        view = view_beam(beam, most=2, logp_next=lm.run(beam.logp_next()), top=3)
        assert (view.text, view.logp) == (b"ab", beam.logZ)
        assert [row.logp for row in view.rows] == [s.weight for s in beam.states[:2]]
        for row in view.rows:
            assert b"".join(view.shared + row.tokens) + row.partial == b"ab"
            assert row.share == pytest.approx(math.exp(row.logp - beam.logZ))
        number, share = view.others
        assert number == len(beam) - 2 > 0
        assert share == pytest.approx(1 - sum(row.share for row in view.rows))
        assert len(view.following) == 3
        ps = [one.p for one in view.following]
        assert ps == sorted(ps, reverse=True)
        p = lm.next("ab", method="beam")
        for one in view.following:
            assert math.log(one.p) == pytest.approx(p[257 if one.byte is None else one.byte[0]])

    def test_what_all_share(self):
        """A beam of one candidate after `abca`: its committed tokens are shared by all rows."""
        with ByteLM(ToyLM(TOY, seed=3), BeamParams(K=1)) as lm:
            view = view_beam(lm.beam("abcab").prune())
        assert len(view.rows) == 1 and view.rows[0].tokens == () and view.shared
        assert b"".join(view.shared) + view.rows[0].partial == view.text == b"abcab"

    def test_the_end_and_nothing(self, lm):
        end = view_beam(lm.run(lm.beam("ab") << 257))
        assert all(row.ended for row in end.rows) and "EOS" in draw(end)
        empty = ByteBeamState([], EXACT)
        view = view_beam(empty)
        assert (view.rows, view.text, view.others) == ((), b"", (0, 0.0))
        assert "(nothing read)" in draw(view) and "<tbody>" in beam_html(view)

    def test_impossible_bytes_are_not_listed(self, lm):
        following = view_beam(lm.beam("a"), logp_next=lm.next("a"), top=258).following
        assert {one.byte for one in following} <= {b"a", b"b", b"c", b"<", None}

    def test_units_are_listed(self):
        ps = [-math.inf] * 258
        ps[97] = math.log(0.25)
        logp = LazyByteProbs(ps, units={b"<e>": math.log(0.75)})
        with ByteLM(ToyLM(TOY), EXACT) as lm:
            following = view_beam(lm.beam(""), logp_next=logp).following
        assert [one.byte for one in following] == [b"<e>", b"a"]


class TestWalk:
    def test_is_reading(self, lm):
        """Every view is that of the beam which `prefill` gives for the text so far."""
        views = lm.run(collect(walk(lm.beam("a"), b"bca", top=2)))
        assert [view.text for view in views] == [b"a", b"ab", b"abc", b"abca"]
        for view in views:
            beam = lm.beam(view.text)
            assert view.logp == pytest.approx(beam.logZ)
            p = lm.run(beam.with_mode(TrieMode.WITH_EOS).logp_next())
            assert view.following[0].p == pytest.approx(math.exp(max(p.materialize().values())))

    def test_without_next_bytes(self, lm):
        assert not lm.run(collect(walk(lm.beam(""), b"a", top=0)))[-1].following

    def test_a_byte_that_nobody_can_read(self, lm):
        with pytest.raises(InvalidValueError, match="byte 0x7a at offset 1"):
            lm.run(collect(walk(lm.beam(""), b"az")))


async def collect(views):
    return [view async for view in views]


class TestTerminal:
    def test_everything_is_there(self, lm):
        beam = lm.beam("ab")
        text = draw(view_beam(beam, most=2, logp_next=lm.run(beam.logp_next())))
        assert f"2 bytes, logp {beam.logZ:.2f}" in text
        assert text.count("█") >= 2 and "a│b…" in text and f"and {len(beam) - 2} more" in text
        assert "next" in text and "EOS" in text

    def test_those_who_wait(self):
        with ByteLM(ToyLM(TOY, seed=3), BeamParams(tolerance=0.4)) as lm:
            beam = lm.beam("abab")
        assert len(beam.deferred) and f"{len(beam.deferred)} deferred, expected share" in draw(
            view_beam(beam)
        )

    def test_those_who_were_dropped(self):
        with ByteLM(ToyLM(TOY, seed=3), BeamParams(K=1)) as lm:
            assert "dropped: expected share" in draw(view_beam(lm.beam("abab").prune()))

    def test_the_end_of_a_long_text(self, lm):
        text = draw(view_beam(lm.beam("ab" * 4 + "c").prune(), most=3))
        assert "abababab" in text
        with ByteLM(ToyLM(TOY, seed=3), BeamParams(K=2)) as narrow:
            lines = draw(view_beam(narrow.beam("abc" * 60))).splitlines()
        assert lines[0].startswith("…") and len(lines[0]) < 100

    def test_the_tokenizers_own(self):
        import tiny

        with ByteLM(tiny.transformer("llama"), BeamParams(K=5)) as lm:
            assert "the│␣and…  ← agrees with the tokenizer" in draw(view_beam(lm.beam("the and").prune()))


class Checked(HTMLParser):
    """Collects text, and the addresses that a document would load from."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.text, self.addresses, self.tags = "", [], []
        self.feed(document)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "action", "data")]

    def handle_data(self, data):
        self.text += data


HOSTILE = [b"<", b"<script>", b"</style>", b"&", b'"', b"{{", b"\x1b[2J", b"\xff", "日".encode()]


class TestHtml:
    def test_headings_hide_nothing(self) -> None:
        evil = "a\x1b[2J\u202e\x9bb\n<i>"
        pages = [
            page_html([], evil),
            heat_head(evil, evil),
            heat_foot(evil),
            heat_section(evil, evil, [HeatPiece("x", 0.5, evil)]),
        ]
        for page in pages:
            assert r"a\x1b[2J\u202e\u009bb\n&lt;i&gt;" in page and not set("\x1b\u202e\x9b") & set(page)

    def test_a_notebook_shows_a_beam(self, lm):
        found = Checked(lm.beam("ab")._repr_html_())
        assert "2 bytes" in found.text and not found.addresses and "script" not in found.tags

    @pytest.mark.parametrize("text", HOSTILE, ids=repr)
    def test_texts_are_escaped(self, text):
        """A vocabulary of markup: the document's own elements are all there are."""
        words = [*(bytes([b]) for b in sorted(set(b"".join(HOSTILE)))), *HOSTILE]
        with ByteLM(ToyLM(words, seed=1), BeamParams(K=4)) as lm:
            views = lm.run(collect(walk(lm.beam(), text)))
        plain = Checked(page_html(views[:1], "x"))
        page = page_html(views, one_line(text))
        found = Checked(page)
        assert found.tags.count("script") == 1 and found.tags.count("style") == plain.tags.count("style")
        assert one_line(text) in found.text and not found.addresses
        assert "\x1b" not in page and "\udcff" not in page

    def test_a_page_needs_nothing_else(self, lm):
        views = lm.run(collect(walk(lm.beam(), b"abc")))
        page = page_html(views, "abc")
        assert page.lstrip().startswith("<!doctype html>")
        assert not re.search(r"https?:|//|@import|url\(", page)
        assert "color-scheme: light dark" in page
        assert re.findall(r'<section id="byte-(\d)">', page) == ["0", "1", "2", "3"]

    def test_a_tokenizer_without_encode_has_no_opinion(self, lm):
        assert isinstance(lm.llm.tokenizer, ToyTokenizer)
        assert "agrees with" not in beam_html(view_beam(lm.beam("ab")))
