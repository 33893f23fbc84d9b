"""Contexts of parts: special tokens, chat messages, fill-in-the-middle, and where the beam then starts."""

from __future__ import annotations

import copy

import pytest
import tiny
from toy import FixedLM, ToyLM

from genlm.bytes import AsyncByteLM, BeamParams
from genlm.bytes.errors import InvalidTypeError, InvalidValueError
from genlm.bytes.prompt import Prompt, parse_context
from genlm.bytes.prompt.infill import FAMILIES, infill
from genlm.bytes.vocab import shared_trie

TEMPLATE = (
    "<s>{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] | trim }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
FIM = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")


@pytest.fixture(scope="module")
def llm():
    """A tiny model whose tokenizer has a chat template and the tokens for filling in the middle."""
    from genlm.backend.llm import AsyncTransformer

    tokenizer = copy.deepcopy(tiny.tokenizer())
    names = ["<|user|>", "<|assistant|>", "<|end|>", *FIM]
    tokenizer.add_special_tokens({"additional_special_tokens": names})
    tokenizer.chat_template = TEMPLATE
    model = tiny.model("llama")
    model.resize_token_embeddings(len(tokenizer))
    return AsyncTransformer(model, tokenizer)


@pytest.fixture
def model(llm):
    return AsyncByteLM(llm, BeamParams(K=4, prune_threshold=0.01))


def parse(llm, context):
    return parse_context(llm, shared_trie(llm, (), None).trie, context)


def ids(llm, *parts):
    """Token ids of parts: text by the tokenizer, special tokens by name."""
    tokenizer, found = llm.tokenizer, []
    for part in parts:
        special = tokenizer.get_vocab().get(part) if part.startswith("<") else None
        found += [special] if special is not None else tokenizer.encode(part, add_special_tokens=False)
    return tuple(found)


class TestParts:
    def test_text_alone_is_open(self, llm):
        assert parse(llm, "the end") == Prompt(None, b"the end")
        assert parse(llm, b"\xff") == Prompt(None, b"\xff")
        assert parse(llm, ("the ", b"end")) == Prompt(None, b"the end")
        assert parse(llm, bytearray(b"x")) == Prompt(None, b"x")

    def test_what_stands_before_a_special_token_is_closed(self, llm, model):
        end = model.special("<|end|>")
        got = parse(llm, ("the en", end, "d and", end, "th"))
        assert got.ids == ids(llm, "<s>", "the en", "<|end|>", "d and", "<|end|>")
        assert (got.text, got.before) == (b"th", b"the en<|end|>d and<|end|>")
        assert parse(llm, ["x", end]).text == b""

    def test_one_beginning_of_the_sequence(self, llm, model):
        bos, end = model.special("<s>"), model.special("<|end|>")
        assert parse(llm, (bos, "the")) == Prompt((bos,), b"the", b"<s>")
        assert parse(llm, (end, "the")).ids == (end,)
        assert parse(llm, "<s>the") == Prompt(None, b"the")
        assert parse(llm, ("<s>the", end)).ids == ids(llm, "<s>", "the", "<|end|>")

    async def test_the_beam_starts_after_the_last_special_token(self, model):
        end = model.special("<|end|>")
        beam = await model.beam(("the ", end, "a"))
        for state in beam:
            context = state.lm_state.context
            assert context[: context.index(end) + 1] == list(ids(model.llm, "<s>", "the ", "<|end|>"))
        assert bytes(beam.states[0].partial) == b"a"

    async def test_healing_never_crosses_a_special_token(self):
        """`ab` would be healed to `a|bc`, were it not for the boundary that the special token sets."""
        words = [b"a", b"abc", b"bd", b"d", b"<x>"]
        open_end = FixedLM(words, rule=lambda context: [0.3, 0.3, 0.2, 0.1, 0.1])
        model = AsyncByteLM(open_end, BeamParams(K=10))
        assert (await model.complete("ab", max_bytes=1)).text in "cd"
        with pytest.raises(InvalidValueError, match="no tokens of this model spell"):
            await model.complete(("ab", 4))
        assert len(await model.beam(("a", 4, "b"))) == 1

    def test_names(self, llm, model):
        assert llm.tokenizer.convert_ids_to_tokens(model.special("<|end|>")) == "<|end|>"
        with pytest.raises(InvalidValueError, match="`name` is '<nope>'"):
            model.special("<nope>")
        assert AsyncByteLM(ToyLM([b"a", b"<x>"])).special("<x>") == 1

    async def test_without_healing_the_end_is_a_boundary(self, model):
        read = await model._read("the th", healing=False)
        (state,) = read.beam.states
        assert state.lm_state.context == list(ids(model.llm, "<s>", "the th"))
        assert read.text == b"the th"


class TestChat:
    def test_the_assistant_speaks_next(self, llm):
        got = parse(llm, [{"role": "user", "content": "the end"}])
        assert got.ids == ids(llm, "<s>", "<|user|>", "\nthe end", "<|end|>", "\n", "<|assistant|>")
        assert got.text == b"\n"

    @pytest.mark.parametrize("said", ["and th", "and ", "and\n\n", " and"])
    def test_an_unfinished_answer_is_continued_as_it_stands(self, llm, said):
        messages = [{"role": "user", "content": "the end"}, {"role": "assistant", "content": said}]
        got = parse(llm, messages)
        assert got.ids == ids(llm, "<s>", "<|user|>", "\nthe end", "<|end|>", "\n", "<|assistant|>")
        assert got.text == b"\n" + said.lstrip().encode()

    def test_an_empty_answer_is_one_that_has_not_begun(self, llm):
        question = [{"role": "user", "content": "the end"}]
        assert parse(llm, [*question, {"role": "assistant", "content": ""}]) == parse(llm, question)

    async def test_no_second_beginning(self, model):
        beam = await model.beam([{"role": "user", "content": "the end"}])
        assert all(state.lm_state.context.count(model.special("<s>")) == 1 for state in beam)

    async def test_an_answer(self, model):
        completion = await model.complete([{"role": "user", "content": "the"}], max_bytes=5)
        assert len(completion.bytes) == 5
        assert completion.usage.prompt_tokens >= 6

    async def test_several_conversations_are_a_batch(self, model):
        chats = [[{"role": "user", "content": said}] for said in ("the", "and")]
        both = await model.complete(chats, max_bytes=3)
        assert both == [await model.complete(chat, max_bytes=3) for chat in chats]

    def test_a_single_message(self, llm):
        message = {"role": "user", "content": "the end"}
        assert parse(llm, message) == parse(llm, [message])

    def test_a_template_without_special_tokens(self, llm):
        plain = copy.copy(llm)
        plain.tokenizer = copy.deepcopy(tiny.tokenizer())
        plain.tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
        assert parse(plain, [{"role": "user", "content": "the end"}]) == Prompt(None, b"the end\n")

    def test_a_template_that_refuses(self, llm):
        plain = copy.copy(llm)
        plain.tokenizer = copy.deepcopy(tiny.tokenizer())
        plain.tokenizer.chat_template = "{{ raise_exception('no such role') }}"
        with pytest.raises(InvalidValueError, match=r"refuses these messages .*no such role"):
            parse(plain, [{"role": "user", "content": "the end"}])

    def test_messages_that_are_none(self, llm):
        with pytest.raises(InvalidTypeError, match=r"`prompt\[1\]` is 'hi'"):
            parse(llm, [{"role": "user", "content": "a"}, "hi"])


class TestInfill:
    def fill(self, llm, prefix, suffix, fim=None, healing=True):
        return infill(llm, shared_trie(llm, (), None).trie, prefix, suffix, fim, healing)

    def test_the_prefixs_last_word_is_read_after_the_middle_token(self, llm):
        got = self.fill(llm, "and the an", "d then")
        assert got.ids == ids(llm, FIM[0], "and the", FIM[1], "d then", FIM[2])
        assert (got.text, got.before) == (b" an", b"and the")

    def test_without_healing_the_prefix_stays_whole(self, llm):
        got = self.fill(llm, "and the an", "d then", healing=False)
        assert got.ids == ids(llm, FIM[0], "and the an", FIM[1], "d then", FIM[2])
        assert (got.text, got.spelled) == (b"", b"and the an")

    @pytest.mark.parametrize("healing", [True, False])
    def test_without_a_middle_token_the_suffix_comes_first(self, llm, healing):
        got = self.fill(llm, "and th", "then", (FIM[0], FIM[1], None), healing)
        last = () if healing else ids(llm, "and th")
        assert got.ids == (*ids(llm, FIM[1], "then", FIM[0]), *last)
        assert got.text == (b"and th" if healing else b"")

    def test_names_and_ids(self, llm):
        given = self.fill(llm, "a", "b", [llm.tokenizer.get_vocab()[name] for name in FIM])
        assert given.ids == self.fill(llm, "a", "b").ids
        with pytest.raises(InvalidValueError, match=r"`fim` is .* no such tokens"):
            self.fill(llm, "a", "b", ("<x>", "<y>", "<z>"))
        with pytest.raises(InvalidTypeError, match="`fim` is"):
            self.fill(llm, "a", "b", ("<x>", "<y>"))

    def test_a_model_without_such_tokens(self):
        with pytest.raises(InvalidValueError, match=r"`suffix`.*no known tokens"):
            self.fill(ToyLM([b"a", b"b"]), "a", "b")

    @pytest.mark.parametrize(("names", "ends"), FAMILIES)
    def test_families(self, names, ends):
        """A vocabulary with the family's tokens is recognised, and what ends a middle stops it."""
        words = [b"a", b"b", *(name.encode() for name in (*names, *ends) if name)]
        llm = ToyLM(words)
        got = self.fill(llm, "a", "b")
        order = names if names[2] else (names[1], names[0])
        found = [words[i].decode() for i in got.ids if words[i] not in (b"a", b"b")]
        assert found == list(order)
        assert set(got.stops) == {end.encode() for end in ends}

    def test_a_beginning_of_the_sequence_if_the_tokenizer_puts_one(self, llm):
        from tokenizers.processors import TemplateProcessing

        with_bos = copy.copy(llm)
        with_bos.tokenizer = copy.deepcopy(llm.tokenizer)
        bos = with_bos.tokenizer.bos_token_id
        with_bos.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", bos)]
        )
        assert self.fill(with_bos, "a", "b").ids == (bos, *self.fill(llm, "a", "b").ids)

    async def test_a_middle(self, model):
        completion = await model.complete("and the an", suffix="d then", max_bytes=6)
        assert len(completion.bytes) == 6 and completion.usage.prompt_bytes == len("and the an")
        stream = model.stream("and the an", suffix="d then", max_bytes=6)
        assert b"".join([chunk.bytes async for chunk in stream]) == completion.bytes

    async def test_what_ends_a_middle_stops_it(self):
        words = [b"a", *(name.encode() for name in FIM), b"<|file_sep|>"]
        lm = FixedLM(
            words, rule=lambda context: [0.9, 0, 0, 0, 0.1] if len(context) < 7 else [0, 0, 0, 0, 1.0]
        )
        completion = await AsyncByteLM(lm, BeamParams(K=5), eos=[]).complete("a", suffix="a")
        assert (completion.text, completion.finish_reason, completion.stop) == ("aa", "stop", b"<|file_sep|>")

    @pytest.mark.parametrize("word", ["x" * 200, "é" * 100])
    def test_a_word_that_is_too_long_is_moved_in_part(self, llm, word):
        got = self.fill(llm, word, "")
        assert 60 < len(got.text) <= 64 and got.spelled == word.encode()
        got.text.decode()
