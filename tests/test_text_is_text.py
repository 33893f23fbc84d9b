"""Text is text: nothing that is spelled in a message, a part or a prompt becomes a special token."""

from __future__ import annotations

import copy
import functools

import pytest
from families import CHATML, FAMILIES, JOINED, MISTRAL, TEMPLATED, byte_level, family, model, slow
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, normalizers
from toy import FixedLM, ToyLM

from genlm.bytes import AsyncByteLM, BeamParams, ByteLM
from genlm.bytes.byte_lm.encoder import text_encoder
from genlm.bytes.byte_lm.token_path import draft_tokens, longest_tokens
from genlm.bytes.errors import InvalidTypeError, InvalidValueError
from genlm.bytes.prompt import Prompt, parse_context
from genlm.bytes.prompt.chat import parse_messages
from genlm.bytes.prompt.prompt import tokenize
from genlm.bytes.prompt.special_tokens import added_tokens, special_tokens
from genlm.bytes.vocab import shared_trie, spell


def trie_of(llm):
    return shared_trie(llm, (), None).trie


def names_of(llm):
    """The spellings of the special tokens, and of all others that are added."""
    special = {token.name for token in special_tokens(llm, trie_of(llm))}
    return sorted(special | {token.name for token in added_tokens(llm)})


def control(llm, ids):
    """The tokens among these that no text of a user's may become."""
    found = {token.token_id for token in special_tokens(llm, trie_of(llm))}
    return [i for i in ids if i in found]


def rendered(llm, messages):
    return llm.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


@pytest.mark.parametrize("name", slow(FAMILIES, "tekken", "v1"))
class TestEveryAddedToken:
    def test_in_text(self, name):
        llm = family(name)
        trie, special = trie_of(llm), text_encoder(llm, trie_of(llm)).special
        names = names_of(llm)
        assert len(names) >= 2 and special
        if len(names) > 100:  # all of them at once, and some by themselves
            names = [*names[::50], "".join(names), " ".join(names)]
        for spelled in names:
            for text in (spelled, f"hi{spelled}x", spelled * 2, spelled[:-1] + spelled, f"é {spelled}\n"):
                for ids in (draft_tokens(llm, trie, text.encode()), tokenize(llm, trie, text.encode())):
                    assert special.isdisjoint(ids)
                    assert b"".join(spell(llm, ids)).removeprefix(b" ") == text.encode().removeprefix(b" ")

    def test_in_parts(self, name):
        llm = family(name)
        token = llm.tokenizer.eos_token_id
        for spelled in names_of(llm)[:50]:
            got = parse_context(llm, trie_of(llm), (f"a{spelled}", token, spelled))
            start = [llm.tokenizer.bos_token_id]
            assert control(llm, got.ids) == [*start, token]
            assert got.text.decode() == spelled

    def test_in_messages(self, name):
        """The tokens that a conversation has are those of one that says nothing, whatever it says."""
        llm = family(name)
        names = names_of(llm)
        names = [*names[:10], "".join(names)] if len(names) > 100 else names
        for spelled in names:
            for role in ("user", "assistant"):
                turn = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "fib"}]
                turn += [{"role": "user", "content": "x"}]
                plain = parse_messages(llm, turn)
                turn[role == "assistant"]["content"] += f"{spelled}\n{spelled}hi"
                got = parse_messages(llm, turn)
                assert control(llm, got.ids) == control(llm, plain.ids or ())[: len(control(llm, got.ids))]
                if name not in MISTRAL and name != "phi3":
                    assert got.spelled.decode() == rendered(llm, turn)


@pytest.mark.parametrize("name", TEMPLATED)
class TestTheTemplatesOwn:
    def test_are_the_tokenizers(self, name):
        """Of messages that spell no token, the ids are those of `apply_chat_template`."""
        llm = family(name)
        tokenizer = llm.tokenizer
        for said in ("hi", " fib x ", "a <", "> b", "1 < 2\n", "</", "[x]", "", "é\u3000"):
            turn = [{"role": "user", "content": said}]
            got = parse_messages(llm, turn)
            want = tokenizer.apply_chat_template(
                turn, tokenize=True, return_dict=False, add_generation_prompt=True
            )
            ids = list(got.ids or ())
            assert ids == want[: len(ids)]
            whole = got.closed(llm, trie_of(llm)).ids
            assert list(whole)[-len(want) :] == want

    def test_a_role_that_spells_one(self, name):
        llm = family(name)
        end = next(token.name for token in special_tokens(llm, trie_of(llm)) if token.name != "<s>")
        turns = [[{"role": f"user{more}", "content": "hi"}] for more in (end, "/")]
        one, other = (control(llm, parse_messages(llm, turn).ids or ()) for turn in turns)
        assert one == other


@functools.cache  # what is known of a tokenizer is worked out once for each
def with_template(template, name="smollm2"):
    llm = copy.copy(family(name))
    llm.tokenizer = copy.deepcopy(llm.tokenizer)
    llm.tokenizer.chat_template = template
    return llm


class TestTemplates:
    PIECES = (
        "<|im_end|>",
        "<|im_",
        "start|>",
        "<",
        "|",
        ">",
        "end|>",
        "\n",
        " ",
        "system",
        "</think>",
        "a",
        "ü",
    )

    @given(st.lists(st.lists(st.sampled_from(PIECES), max_size=6).map("".join), min_size=1, max_size=4))
    def test_whatever_is_said(self, said):
        llm = family("smollm2")
        turn = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(said)]
        if turn[-1]["role"] == "assistant":
            turn.append({"role": "user", "content": "a"})
        got = parse_messages(llm, turn)
        assert got.spelled.decode() == rendered(llm, turn)
        empty = [{**message, "content": ""} for message in turn]
        assert control(llm, got.ids) == control(llm, parse_messages(llm, empty).ids)

    @given(st.lists(st.lists(st.sampled_from(PIECES), max_size=3).map("".join), min_size=2, max_size=4))
    def test_pieces_that_the_template_puts_together(self, said):
        llm = with_template(JOINED)
        turn = [{"role": "user", "content": text} for text in said]
        got = parse_messages(llm, turn)
        assert got.spelled.decode() == rendered(llm, turn)
        assert control(llm, got.ids) == [llm.tokenizer.eos_token_id]

    def test_a_template_that_looks_into_messages(self):
        llm = family("thinking")
        turn = [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "<think>end</think>\n the end<|end|>"},
            {"role": "user", "content": "no</think><|User|>"},
        ]
        got = parse_messages(llm, turn)
        assert got.spelled.decode() == rendered(llm, turn)
        assert b"<think>" not in got.spelled
        names = llm.tokenizer.convert_ids_to_tokens(control(llm, got.ids))
        assert names == ["<|User|>", "<|Assistant|>", "<|end|>", "<|User|>", "<|Assistant|>"]

    def test_what_marks_a_turn_is_special(self):
        """Some tokenizers do not call it so. White space that a template writes marks nothing."""
        llm = family("thinking")
        names = {token.name for token in special_tokens(llm, trie_of(llm))}
        assert names == {"<s>", "</s>", "<|end|>", "<|User|>", "<|Assistant|>"}
        lm = AsyncByteLM(llm, eos=[])
        assert lm.parse_special("<|User|>hi<think>") == (lm.special("<|User|>"), "hi<think>")

    def test_what_the_assistant_wrote_is_what_it_is(self):
        """`<tool_call>` is no special token: of the assistant's it is the token, of others' it is text."""
        llm = with_template(CHATML + "{# <tool_call> #}", "thinking")
        llm.tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
        llm = model(llm.tokenizer)
        call = llm.tokenizer.convert_tokens_to_ids("<tool_call>")
        said = {role: {"role": role, "content": "<tool_call>x"} for role in ("user", "assistant")}
        counts = [
            list(parse_messages(llm, turn).ids).count(call)
            for turn in ([said["user"]], [said["user"], said["assistant"], said["user"]])
        ]
        assert counts == [0, 1]

    def test_other_fields_of_a_message(self):
        llm = with_template(
            "{% for m in messages %}{{ m['name'] }}{{ m['calls'][0]['x'] }}{% endfor %}<|im_end|>"
        )
        turn = [
            {"role": "user", "content": "", "name": "<|im_end|>", "calls": [{"x": "<|im_start|>", "y": 1}]}
        ]
        assert control(llm, parse_messages(llm, turn).ids) == [llm.tokenizer.eos_token_id]

    def test_a_template_without_special_tokens(self):
        llm = with_template("{% for m in messages %}{{ m['content'] }}\n{% endfor %}")
        bos = llm.tokenizer.bos_token_id
        assert parse_messages(llm, [{"role": "user", "content": "the end"}]) == Prompt(None, b"the end\n")
        got = parse_messages(llm, [{"role": "user", "content": "the<|im_end|> end"}])
        assert (got.before, got.text, control(llm, got.ids)) == (b"the<|im_end|>", b" end\n", [bos])

    def test_private_characters(self):
        llm = family("smollm2")
        said = "\ue000<|im_end|>\ue001"
        assert said.encode() in parse_messages(llm, [{"role": "user", "content": said}]).spelled

    @pytest.mark.parametrize("name", ["smollm2", "v3"])
    def test_no_messages(self, name):
        with pytest.raises(InvalidValueError, match="a conversation needs a message"):
            parse_messages(family(name), [])

    def test_a_lone_surrogate(self):
        with pytest.raises(InvalidValueError, match=r"`prompt\[0\]` is .*lone surrogate"):
            parse_messages(family("smollm2"), [{"role": "user", "content": "\ud800"}])


class TestCanonicalTokenizations:
    """What is closed is cut on purpose; no token reaches over a special one, so it can be followed."""

    @pytest.mark.parametrize("name", slow(["smollm2", "llama3"], "smollm2"))
    async def test_a_message_that_spells_a_token(self, name):
        llm = family(name)
        lm = AsyncByteLM(llm, BeamParams(K=5, prune_threshold=0.1, canonical=True), eos=[])
        end = names_of(llm)[3]
        turn = [{"role": "user", "content": f"the{end} end"}]
        beam = await lm.beam(turn)
        assert beam.states[0].lm_state.context[: beam.begun] == list(parse_messages(llm, turn).ids)

    async def test_what_follows_the_last_one_is_still_asked_for(self):
        lm = AsyncByteLM(family("llama3"), BeamParams(K=5, canonical=True), eos=[])
        vocab = lm.llm.tokenizer.get_vocab()
        start, t, h = vocab["<|eot_id|>"], vocab["t"], vocab["h"]
        assert await lm.beam((start, t, h, start))
        with pytest.raises(InvalidValueError, match="must begin a canonical tokenization"):
            await lm.beam((start, t, h))


class TestUnfinishedAnswers:
    @pytest.mark.parametrize("said", ["fib \n", "x", "fib", "1\t", "<|im_end|> and ", "</think>x "])
    @pytest.mark.parametrize("name", ["smollm2", "llama3", "thinking"])
    def test_end_as_they_stand(self, name, said):
        turn = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": said}]
        got = parse_messages(family(name), turn)
        expected = said.split("</think>")[-1] if name == "thinking" else said
        assert got.spelled.endswith(expected.encode())
        assert control(family(name), got.ids)[-1] != family(name).tokenizer.eos_token_id

    @pytest.mark.parametrize("said", [" ", "\n\n", "\t "])
    @pytest.mark.parametrize("name", ["smollm2", "llama3", "thinking", "phi3"])
    def test_of_white_space(self, name, said):
        question = [{"role": "user", "content": "hi"}]
        got = parse_messages(family(name), [*question, {"role": "assistant", "content": said}])
        begun = parse_messages(family(name), question)
        assert got.spelled == begun.spelled + said.encode() and got.ids == begun.ids

    def test_a_template_that_leaves_them_out(self):
        llm = with_template("{{ messages[0]['content'] }}<|im_end|>")
        turn = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "x"}]
        with pytest.raises(InvalidValueError, match="leaves out the message to be continued"):
            parse_messages(llm, turn)


class TestStripping:
    """Phi-3: `<|user|>` takes the white space after it."""

    def test_the_model_sees_what_it_was_trained_on(self):
        llm = family("phi3")
        turn = [
            {"role": "user", "content": "  hi"},
            {"role": "assistant", "content": "x"},
            {"role": "user", "content": ""},
        ]
        got = parse_messages(llm, turn)
        assert list(got.ids) == llm.tokenizer.apply_chat_template(
            turn, tokenize=True, return_dict=False, add_generation_prompt=True
        )
        assert (
            got.text == b""
            and got.before == b"<|user|>hi<|end|><|assistant|>x<|end|><|user|><|end|><|assistant|>"
        )

    def test_an_unfinished_answer_is_the_users(self):
        llm = family("phi3")
        got = parse_messages(
            llm, [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "  x "}]
        )
        assert got.text == b"  x "

    def test_white_space_before(self):
        lm = AsyncByteLM(family("phi3"), eos=[])
        left, user = lm.special("<|left|>"), lm.special("<|user|>")
        assert lm.parse_special("x \n<|left|> i<|user|>\n f") == ("x", left, " i", user, "f")


class TestParseSpecial:
    def test_parts(self):
        lm = ByteLM(family("smollm2"))
        start, end = lm.special("<|im_start|>"), lm.special("<|im_end|>")
        assert lm.parse_special("<|im_start|>user\nhi<|im_end|>") == (start, "user\nhi", end)
        assert lm.parse_special("hi") == ("hi",) and lm.parse_special("") == ("",)
        got = parse_context(lm.llm, trie_of(lm.llm), lm.parse_special("<|im_start|>user\nhi<|im_end|>\n"))
        assert (
            list(got.ids) == lm.llm.tokenizer.encode("<|im_start|>user\nhi<|im_end|>") and got.text == b"\n"
        )

    def test_no_text(self):
        with pytest.raises(InvalidTypeError, match="`text` is b'x'"):
            ByteLM(family("llama3"), eos=[]).parse_special(b"x")

    def test_words_that_stand_alone(self):
        tokenizer = byte_level()
        tokenizer.add_special_tokens({"additional_special_tokens": [AddedToken("stop", single_word=True)]})
        lm = AsyncByteLM(model(tokenizer), eos=[])
        assert lm.parse_special("stop stopped stop") == (lm.special("stop"), " stopped ", lm.special("stop"))


class TestTokenizersThatWillNot:
    def test_spelled_otherwise(self):
        """A lower-casing tokenizer finds `<|END|>` in the text that it has made; a wide one by NFKC."""
        tokenizer = byte_level(normalizer=normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()]))
        tokenizer.add_special_tokens({"additional_special_tokens": [AddedToken("<|end|>", normalized=True)]})
        llm = model(tokenizer)
        end = tokenizer.convert_tokens_to_ids("<|end|>")
        for text in ("<|END|>", "a<\uff5cend|>", "\uff1c|end|>"):
            assert tokenizer.encode(text)[-1] == end
            assert end not in tokenize(llm, trie_of(llm), text.encode())
            got = parse_context(llm, trie_of(llm), (text, end))
            assert got.ids.count(end) == 1

    def test_no_way_to_split(self):
        """A tokenizer that knows no `split_special_tokens`: the text is cut inside the spelling."""
        llm = copy.copy(family("llama3"))

        class Stubborn:
            all_special_ids = llm.tokenizer.all_special_ids

            def encode(self, text, add_special_tokens):
                return family("llama3").tokenizer.encode(text, add_special_tokens=add_special_tokens)

        llm.tokenizer = Stubborn()
        ids = draft_tokens(llm, trie_of(llm), b"the<|eot_id|> the")
        assert b"".join(spell(llm, ids)) == b"the<|eot_id|> the"
        assert not set(ids) & set(Stubborn.all_special_ids)
        assert spell(llm, ids)[:3] == [b"the", b"<", b"|"]
        assert text_encoder(llm, trie_of(llm)).exact(b"the<|eot_id|> the", cut=False) is None

    def test_made_once_for_each_tokenizer(self):
        llm, other = copy.copy(family("llama3")), copy.copy(family("llama3"))
        trie = trie_of(llm)
        other.tokenizer = copy.deepcopy(llm.tokenizer)
        first, second = text_encoder(llm, trie), text_encoder(other, trie)
        assert first is not second
        assert text_encoder(llm, trie) is first and text_encoder(other, trie) is second

    def test_the_setting_does_not_stick(self):
        llm = family("llama3")
        draft_tokens(llm, trie_of(llm), b"<|eot_id|>")
        assert llm.tokenizer.backend_tokenizer.encode_special_tokens is False

    @pytest.mark.parametrize(
        "encode",
        [
            lambda text, add_special_tokens=True: 1 / 0,
            lambda text, add_special_tokens=True: None,
            lambda text: [0],
            lambda text, add_special_tokens=True: ["a", "b"],
            lambda text, add_special_tokens=True: [99] * len(text),
            lambda text, add_special_tokens=True: 7,
            "not callable",
        ],
    )
    async def test_any_answer_will_do(self, encode):
        plain = ToyLM([b"a", b"ab", b"b", b"<e>"], eos=3)
        llm = ToyLM([b"a", b"ab", b"b", b"<e>"], eos=3)
        llm.tokenizer.encode = encode
        for option in ({}, {"token_healing": False}, {"method": "heal"}):
            asked = {"max_bytes": 4, "seed": 1, **option}
            want = await AsyncByteLM(plain, BeamParams(K=5)).complete("abab", **asked)
            assert await AsyncByteLM(llm, BeamParams(K=5)).complete("abab", **asked) == want
        surprisals = await AsyncByteLM(llm, BeamParams(K=5)).word_surprisal("ab", spans=[(0, 2)])
        assert surprisals[0].surprisal > 0


class TestLongestTokens:
    WORDS = (b"<e>", b"<", b"e", b">", b"e", b"e>", b"e>")

    def test_without_special_tokens(self):
        llm = FixedLM(list(self.WORDS), eos=0, rule=lambda context: [1 / 7] * 7)
        assert draft_tokens(llm, trie_of(llm), b"<e>") == [1, 5]
        assert list(longest_tokens(trie_of(llm), b"<e>")) == [0]
        assert list(longest_tokens(trie_of(llm), b"<e>", {0, 5, 6})) == [1, 2, 3]
        assert list(longest_tokens(trie_of(llm), b"<e>", {0}, {2, 5})) == [1, 6]
        assert list(longest_tokens(trie_of(llm), b"<e", {1})) == []

    def test_nothing_else_spells_it(self):
        llm = ToyLM([b"a", b"<e>"], eos=1)
        with pytest.raises(InvalidValueError, match="A special token is given by its id"):
            parse_context(llm, trie_of(llm), ("a<e>", 1))
        assert parse_context(llm, trie_of(llm), ("a", 1, 1)).ids == (1, 0, 1, 1)
