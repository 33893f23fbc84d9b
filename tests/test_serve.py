"""The server's API, by the clients that people have: what it gives is what the library gives."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import openai
import pytest
import torch
from served import app_of, asking, events, openai_client
from toy import FixedLM, ToyLM

from genlm.bytes import AsyncByteLM
from genlm.bytes.serve import Catalog, Settings, create_app

PROMPT = "and the"
MESSAGES: Any = [{"role": "user", "content": "the and"}]


@pytest.fixture
def app(llm: Any) -> Any:
    return app_of(llm)


@pytest.fixture
def client(app: Any) -> openai.AsyncOpenAI:
    return openai_client(app)


@pytest.fixture
def lm(llm: Any) -> AsyncByteLM:
    return AsyncByteLM(llm)


class TestCompletions:
    async def test_is_what_the_library_completes(self, client, lm):
        found = await client.completions.create(
            model="tiny", prompt=PROMPT, max_tokens=5, temperature=0, logprobs=2
        )
        own: Any = await lm.complete(PROMPT, max_tokens=5, temperature=0, top_logprobs=2)
        (choice,) = found.choices
        assert choice.text == own.text
        assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (
            own.usage.prompt_tokens,
            own.usage.completion_tokens,
        )
        assert choice.logprobs.token_logprobs == pytest.approx(own.token_logprobs.tolist(), abs=1e-9)
        assert [bytes(b) for b in choice.logprobs.model_extra["bytes"]] == list(own.token_bytes)
        assert all(
            max(top.values()) == pytest.approx(max(a.logprob for a in alternatives))
            for top, alternatives in zip(choice.logprobs.top_logprobs, own.token_top, strict=True)
        )

    async def test_lists_counts_and_seeds(self, client, lm):
        asked: Any = {"model": "tiny", "max_tokens": 3, "seed": 7, "n": 2}
        found = await client.completions.create(prompt=[PROMPT, "in"], **asked)
        assert [c.index for c in found.choices] == [0, 1, 2, 3]
        own: Any = await lm.complete([PROMPT, "in"], max_tokens=3, seed=7, n=2, temperature=1.0)
        assert [c.text for c in found.choices] == [c.text for some in own for c in some]
        streamed = ["", "", "", ""]
        async for chunk in await client.completions.create(prompt=[PROMPT, "in"], stream=True, **asked):
            for choice in chunk.choices:
                streamed[choice.index] += choice.text
        assert streamed == [c.text for c in found.choices]
        best = await client.completions.create(prompt=PROMPT, best_of=3, **(asked | {"n": 1}))
        likeliest: Any = await lm.complete(PROMPT, max_tokens=3, seed=7, best_of=3)
        assert best.choices[0].text == likeliest.text

    async def test_streams_end_with_usage_where_it_is_asked_for(self, app, client):
        whole = await client.completions.create(model="tiny", prompt=PROMPT, temperature=0)
        stream = await client.completions.create(
            model="tiny", prompt=PROMPT, temperature=0, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        assert "".join(c.text for chunk in chunks for c in chunk.choices) == whole.choices[0].text
        assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
        assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
        with asking(app) as http:
            said = (await http.post("/v1/completions", json={"prompt": PROMPT, "stream": True})).text
        assert said.endswith("data: [DONE]\n\n")

    async def test_a_streams_figures_are_those_of_the_whole(self, client):
        asked: Any = {"model": "tiny", "prompt": PROMPT, "max_tokens": 4, "seed": 3, "logprobs": 1}
        whole = (await client.completions.create(**asked)).choices[0].logprobs
        figures: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "text_offset": []}
        async for chunk in await client.completions.create(stream=True, **asked):
            for name, found in figures.items():
                found += getattr(chunk.choices[0].logprobs, name)
        length = len(figures["tokens"])
        assert figures["tokens"] == whole.tokens[:length]
        assert figures["token_logprobs"] == pytest.approx(whole.token_logprobs[:length])
        assert figures["text_offset"] == whole.text_offset[:length]

    async def test_stops_suffixes_and_bounds(self, client, lm):
        whole: Any = await lm.complete(PROMPT, max_bytes=12, temperature=0)
        stop = whole.text[3:5]
        found = await client.completions.create(
            model="tiny", prompt=PROMPT, temperature=0, stop=stop, extra_body={"max_bytes": 12}
        )
        (choice,) = found.choices
        assert choice.text == whole.text.partition(stop)[0]
        assert (choice.finish_reason, choice.model_extra["stop_reason"]) == ("stop", stop)
        with pytest.raises(openai.BadRequestError, match="filling in the middle") as caught:
            await client.completions.create(model="tiny", prompt=PROMPT, suffix="x")
        assert caught.value.param == "suffix"

    async def test_an_echoed_prompt_has_the_figures_of_its_bytes(self, client, lm, llm):
        """By the tokenizer's tokens, or by the client's own: spans of them sum to spans of the text."""
        text = "the and in the"
        ids = llm.tokenizer(text).input_ids
        other = [llm.tokenizer.convert_tokens_to_ids(c) for c in "the"]
        score: Any = await lm.score(text)
        for prompt in (text, ids):
            found = await client.completions.create(
                model="tiny", prompt=prompt, echo=True, logprobs=1, max_tokens=0, temperature=0
            )
            given = found.choices[0].logprobs
            assert found.choices[0].text == text == "".join(given.tokens)
            assert len(given.tokens) == len(ids)
            assert sum(given.token_logprobs) == pytest.approx(score.logprob, abs=1e-6)
            assert given.token_logprobs[-1] == pytest.approx(score[given.text_offset[-1] :].logprob, abs=1e-6)
        cut = await client.completions.create(model="tiny", prompt=other, echo=True, logprobs=1, max_tokens=0)
        figures = cut.choices[0].logprobs
        assert figures.tokens == ["t", "h", "e"]
        alone: Any = await lm.score("the")  # of a longer text, what is found after "the" would count too
        assert figures.token_logprobs == pytest.approx(alone.logprobs.tolist(), abs=1e-6)

    async def test_an_echoed_prompt_by_its_tokens_has_their_own_figures(self, client, llm):
        """With `unit: "token"`: what one plain forward over the tokens says, whoever has tokenized."""
        text = "the and in the"
        own = llm.tokenizer(text).input_ids
        begin = [llm.tokenizer.bos_token_id]
        for prompt, ids in ((text, own), (own, own), ([*begin, *own], [*begin, *own])):
            found = await client.completions.create(
                model="tiny", prompt=prompt, echo=True, logprobs=2, max_tokens=2, temperature=0,
                extra_body={"unit": "token"},
            )  # fmt: skip
            given = found.choices[0].logprobs
            context = ids if ids[:1] == begin else [*begin, *ids]
            rows = torch.log_softmax(llm.model(torch.tensor([context])).logits[0].detach().double(), -1)
            logps = [float(rows[i, token]) for i, token in enumerate(context[1:])]
            skipped = len(context) - len(ids)
            expected = logps if skipped else [None, *logps]
            assert given.token_logprobs[: len(ids)] == pytest.approx(expected, abs=1e-5)
            best = max(given.top_logprobs[len(ids) - 1].values())
            assert best == pytest.approx(float(rows[len(context) - 2].max()), abs=1e-5)
            assert len(given.tokens) >= len(ids) + 1 and "".join(given.tokens).endswith(
                found.choices[0].text[-1]
            )

    async def test_alternatives_say_whether_a_prompts_token_is_greedy(self, client, lm):
        text = (await lm.complete("in", max_bytes=6, temperature=0)).text
        for prompt, greedy in (("in" + text, True), ("in" + text[:-1] + "\x01", False)):
            found = await client.completions.create(
                model="tiny", prompt=prompt, echo=True, logprobs=1, max_tokens=0, extra_body={"unit": "byte"}
            )
            given = found.choices[0].logprobs
            best = zip(given.token_logprobs[2:], given.top_logprobs[2:], strict=True)
            rows: Any = await lm.byte_logprobs(prompt)
            expected = [int(np.argmax(row)) == byte for row, byte in zip(rows, prompt.encode(), strict=True)]
            assert [logp == max(top.values()) for logp, top in best] == expected[2:]
            assert expected[-1] is greedy

    async def test_by_byte(self, client, lm):
        found = await client.completions.create(
            model="tiny", prompt="caf\u00e9 ", temperature=0, logprobs=3,
            extra_body={"unit": "byte", "max_bytes": 6},
        )  # fmt: skip
        own: Any = await lm.complete("caf\u00e9 ", temperature=0, unit="byte", max_bytes=6, logprobs=True)
        given = found.choices[0].logprobs
        assert [bytes(b) for b in given.model_extra["bytes"]][: len(own.bytes)] == [
            bytes([b]) for b in own.bytes
        ]
        assert given.token_logprobs[: len(own.bytes)] == pytest.approx(own.logprobs.tolist())
        assert all(len(top) == 3 for top in given.top_logprobs[: len(own.bytes)])

    async def test_a_prompt_that_ends_inside_a_character_is_given_as_tokens(self, client, lm, llm):
        prompt = "in \u00e9".encode()[:-1]
        of_byte = {bytes(token): token.token_id for token in llm.byte_vocab if len(bytes(token)) == 1}
        own: Any = await lm.complete(prompt, max_tokens=3, temperature=0)
        found = await client.completions.create(
            model="tiny", prompt=[of_byte[bytes([b])] for b in prompt],
            max_tokens=3, temperature=0, logprobs=0,
        )  # fmt: skip
        given = found.choices[0].logprobs.model_extra["bytes"]
        assert bytes(byte for piece in given for byte in piece).startswith(own.bytes) and own.bytes

    async def test_masks(self, client):
        asked: Any = {"model": "tiny", "prompt": "In ", "seed": 1, "max_tokens": 8}
        found = await client.completions.create(**asked, extra_body={"guided_regex": "(19|20)[0-9]{2}"})
        assert found.choices[0].text[:2] in ("19", "20") and len(found.choices[0].text) == 4
        schema = {
            "type": "object",
            "properties": {"a": {"enum": [1]}},
            "required": ["a"],
            "additionalProperties": False,
        }
        for body in (
            {"guided_json": schema},
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}},
        ):
            found = await client.completions.create(**asked, extra_body=body)
            assert json.loads(found.choices[0].text) == {"a": 1}
        with pytest.raises(openai.BadRequestError) as caught:
            await client.completions.create(**asked, extra_body={"guided_regex": "("})
        assert caught.value.param == "guided_regex"

    async def test_special_tokens_in_a_text_are_text(self, client, lm):
        spelled = "in</s>the"
        asked: Any = {"model": "tiny", "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1}
        found = await client.completions.create(prompt=spelled, **asked)
        given = found.choices[0].logprobs.token_logprobs
        assert sum(given[:-1]) == pytest.approx((await lm.score(spelled)).logprob, abs=1e-6)
        end = lm.llm.tokenizer.eos_token_id
        meant = await client.completions.create(prompt=[*lm.llm.tokenizer("in").input_ids, end], **asked)
        assert (
            meant.choices[0].logprobs.token_logprobs[-2] is None
        )  # a token, which has no bytes to be scored

    @pytest.mark.parametrize(
        "body, param",
        [
            ({"prompt": "x", "logit_bias": {"5": 1}}, "logit_bias"),
            ({"prompt": "x", "presence_penalty": 1}, "presence_penalty"),
            ({"prompt": "x", "nonsense": 1}, "nonsense"),
            ({"prompt": "x", "n": "two"}, "n"),
            ({"prompt": "x", "n": 1000}, "n"),
            ({"prompt": "x", "temperature": -1}, "temperature"),
            ({"prompt": "x", "top_p": 2}, "top_p"),
            ({"prompt": "x", "stop": [""]}, "stop"),
            ({"prompt": "x" * 70_000}, "prompt"),
            ({"prompt": [99999]}, "prompt"),
            ({"prompt": []}, "prompt"),
            ({"prompt": "\ud800"}, "prompt"),
            ({}, "prompt"),
            ({"prompt": "x", "best_of": 2, "stream": True}, "best_of"),
            ({"prompt": "x", "stream_options": {"include_usage": True}}, "stream_options"),
            (
                {"prompt": "x", "stream": True, "stream_options": {"continuous_usage_stats": True}},
                "stream_options",
            ),
            ({"prompt": "x", "response_format": {"type": "xml"}}, "response_format"),
            ({"prompt": "x", "guided_regex": "a", "guided_json": {}}, "guided_json"),
        ],
    )  # fmt: skip
    async def test_what_cannot_be_honoured_is_said_by_its_field(self, app, body, param):
        with asking(app) as http:
            said = await http.post("/v1/completions", content=json.dumps(body))
        assert said.status_code == 400
        error = said.json()["error"]
        assert (error["type"], error["param"]) == ("invalid_request_error", param)
        assert set(error) == {"message", "type", "param", "code"}

    @pytest.mark.parametrize(
        "body", [b"", b"{", b"[]", b"7", b"\xff\xfe", b"[" * 100_000, b'{"prompt": NaN}']
    )
    async def test_bodies_that_are_none(self, app, body):
        with asking(app) as http:
            said = await http.post("/v1/completions", content=body)
        assert said.status_code == 400 and said.json()["error"]["type"] == "invalid_request_error"


class TestChat:
    async def test_is_what_the_library_answers(self, client, lm):
        found = await client.chat.completions.create(
            model="tiny",
            messages=MESSAGES,
            max_completion_tokens=4,
            temperature=0,
            logprobs=True,
            top_logprobs=2,
        )
        own: Any = await lm.complete(MESSAGES, max_tokens=4, temperature=0, top_logprobs=2)
        (choice,) = found.choices
        assert choice.message.content == own.text and choice.message.role == "assistant"
        given = choice.logprobs.content
        assert [bytes(entry.bytes) for entry in given] == list(own.token_bytes)
        assert [entry.logprob for entry in given] == pytest.approx(own.token_logprobs.tolist())
        assert [len(entry.top_logprobs) for entry in given] == [2] * len(given)

    async def test_streams(self, client):
        asked: Any = {"model": "tiny", "messages": MESSAGES, "max_tokens": 4, "seed": 5, "n": 2}
        whole = await client.chat.completions.create(**asked)
        said = ["", ""]
        roles = []
        async for chunk in await client.chat.completions.create(stream=True, **asked):
            for choice in chunk.choices:
                said[choice.index] += choice.delta.content or ""
                roles += [choice.delta.role] if choice.delta.role else []
        assert said == [c.message.content for c in whole.choices] and roles == ["assistant"] * 2

    async def test_a_last_message_of_the_assistants_is_gone_on_with(self, client, lm):
        begun: Any = [*MESSAGES, {"role": "assistant", "content": "an"}]
        asked: Any = {"model": "tiny", "max_tokens": 3, "temperature": 0}
        goes_on: Any = await lm.complete(begun, max_tokens=3, temperature=0)
        anew: Any = await lm.complete(
            [*begun, {"role": "assistant", "content": ""}], max_tokens=3, temperature=0
        )
        for extra, own in (
            ({}, goes_on),
            ({"continue_final_message": True, "add_generation_prompt": False}, goes_on),
            ({"continue_final_message": False}, anew),
        ):
            found = await client.chat.completions.create(messages=begun, extra_body=extra, **asked)
            assert found.choices[0].message.content == own.text

    @pytest.mark.parametrize(
        "body, param",
        [
            ({"messages": []}, "messages"),
            ({"messages": [{"role": "wizard", "content": "x"}]}, "messages"),
            ({"messages": MESSAGES, "tools": [{"type": "function"}]}, "tools"),
            ({"messages": MESSAGES, "tool_choice": "required"}, "tool_choice"),
            ({"messages": MESSAGES, "store": True}, "store"),
            ({"messages": MESSAGES, "continue_final_message": True}, "continue_final_message"),
            ({"messages": MESSAGES, "add_generation_prompt": False}, "add_generation_prompt"),
            ({"messages": MESSAGES, "top_logprobs": 2}, "top_logprobs"),
            ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content"),
            ({"messages": [{"role": "user", "content": "x" * 70_000}]}, "messages"),
        ],
    )  # fmt: skip
    async def test_what_cannot_be_honoured(self, app, body, param):
        with asking(app) as http:
            said = await http.post("/v1/chat/completions", json=body)
        assert (said.status_code, said.json()["error"]["param"]) == (400, param)

    async def test_content_in_parts(self, client):
        parts: Any = [
            {"role": "user", "content": [{"type": "text", "text": "the "}, {"type": "text", "text": "and"}]}
        ]
        asked: Any = {"model": "tiny", "max_tokens": 3, "temperature": 0}
        one = await client.chat.completions.create(messages=parts, **asked)
        other = await client.chat.completions.create(messages=MESSAGES, **asked)
        assert one.choices[0].message == other.choices[0].message


class TestQuestions:
    async def test_score(self, app, lm):
        with asking(app) as http:
            body = {"text": ["the and", "in"], "context": "and ", "end": True}
            found = (await http.post("/v1/score", json=body)).json()["results"]
            words = (await http.post("/v1/score", json={"text": "the and in", "words": True})).json()[
                "results"
            ]
            spans = (await http.post("/v1/score", json={"text": "the and", "spans": [[1, 3]]})).json()[
                "results"
            ]
        for one, score in zip(found, await lm.score(["the and", "in"], "and ", end=True), strict=True):
            assert one["logprobs"] == pytest.approx(score.logprobs.tolist())
            assert one["logprob"] == pytest.approx(score.logprob) and one["end"] == pytest.approx(score.end)
            assert bytes(one["pieces"]) == score.text
        own = await lm.word_surprisal("the and in")
        assert [w["word"] for w in words[0]["words"]] == ["the", "and", "in"]
        assert [w["surprisal"] for w in words[0]["words"]] == pytest.approx([row.surprisal for row in own])
        assert spans[0]["words"][0]["word"] == "he"

    @pytest.mark.parametrize("op", [None, "sum", "prod", "min", "harmonic", "mixture"])
    @pytest.mark.parametrize("text", ["ab", "abx", ""])
    @pytest.mark.parametrize("asked", [{}, {"unit": "char", "end": True}, {"words": True}])
    async def test_what_is_no_number_is_null(self, op, text, asked):
        """Of a text that cannot be written, and of ensembles that are no mean, some figures are not known."""
        members = [AsyncByteLM(ToyLM([b"a", b"b", b"ab", b"<e>"], seed, eos=3)) for seed in (1, 2)]
        lm = members[0] if op is None else AsyncByteLM.ensemble(members, op)
        app = create_app(Catalog(ready={"toy": lm}), Settings())
        with asking(app) as http:
            said = await http.post("/v1/score", json={"text": text, **asked})
        assert said.status_code == 200, said.text
        (found,) = said.json()["results"]
        own: Any = await lm.score(text, on_impossible="inf", end="end" in asked)
        names = ("logprob", "bits", "bits_per_byte", "bits_per_char", "end", "slack", "missing", "error")
        for name in names:
            value = getattr(own, name)
            known = value is not None and math.isfinite(value)
            assert found[name] == (pytest.approx(value, abs=1e-9) if known else None), name
        if op in ("prod", "min", "harmonic") and text != "abx":
            assert [found[name] for name in ("slack", "missing", "error")] == [None] * 3

    async def test_a_token_of_probability_zero_is_no_error_of_the_server(self):
        """The client's own cut of a prompt may be one that the model never makes; others spell the text."""
        rule = [0.0, 0.25, 0.5, 0.25]
        lm = AsyncByteLM(FixedLM([b"a", b"b", b"ba", b"<e>"], eos=3, bos=3, rule=lambda _: rule))
        asked = {"prompt": [1, 0], "echo": True, "max_tokens": 0, "logprobs": 4}
        app = create_app(Catalog(ready={"toy": lm}), Settings())
        with asking(app) as http:
            said = await http.post("/v1/completions", json={**asked, "unit": "token"})
        assert said.status_code == 200, said.text
        figures = said.json()["choices"][0]["logprobs"]
        assert figures["token_logprobs"] == [pytest.approx(math.log(0.25)), -9999.0]

    async def test_next(self, app, lm):
        with asking(app) as http:
            by_byte = (await http.post("/v1/next", json={"prompt": PROMPT, "top": 5, "candidates": 4})).json()
            by_char = (
                await http.post("/v1/next", json={"prompt": "\u00e9", "unit": "char", "top": 4})
            ).json()
            likely = (await http.post("/v1/next", json={"prompt": PROMPT, "min_prob": 0.1})).json()
        own = await lm.next(PROMPT)
        assert [own[row["bytes"][0] if row["bytes"] else 257] for row in by_byte["next"]] == pytest.approx(
            [row["logprob"] for row in by_byte["next"]]
        )
        rows = by_byte["candidates"]["rows"]
        assert sum(row["share"] for row in rows) + by_byte["candidates"]["others"]["share"] == pytest.approx(
            1
        )
        spelled = "".join([*by_byte["candidates"]["shared"], *rows[0]["tokens"], rows[0]["partial"]])
        assert spelled.removeprefix("<s>") == PROMPT
        chars = await (await lm.next("\u00e9")).chars(4)
        assert {row["text"] for row in by_char["next"] if not row.get("end")} == set(chars) - {"EOS"}
        assert all(row["probability"] >= 0.1 for row in likely["next"])

    async def test_predict_and_expand(self, app, lm):
        asked = {"prompt": PROMPT, "unit": "byte", "depth": 2, "min_prob": 0.05}
        with asking(app) as http:
            words = (await http.post("/v1/predict", json={"prompt": "the an", "n": 2, "budget": 20})).json()
            tree = (await http.post("/v1/next", json=asked)).json()["tree"]
        own = await lm.predict_words("the an", 2, budget=20)
        assert [w["word"] for w in words["words"]] == [w.word for w in own] and words["prefix"] == "an"
        root = await lm.expand(PROMPT, 0.05, 2, method="tokenize")
        assert [bytes(c["bytes"]) for c in tree["children"]] == [c.symbol for c in root.children]
        assert sum(c["probability"] for c in tree["children"]) + tree["rest"] == pytest.approx(1)

    async def test_infill(self, app, lm):
        """A model without tokens for it goes on with what stands before, and says so."""
        body = {
            "input_prefix": "and ",
            "prompt": "th",
            "input_suffix": "x",
            "n_predict": 4,
            "samplers": ["x"],
        }
        own: Any = await lm.complete("and th", max_tokens=4, temperature=0)
        with asking(app) as http:
            found = (await http.post("/infill", json=body)).json()
            async with http.stream("POST", "/infill", json={**body, "stream": True}) as response:
                pieces = [piece async for piece in events(response)]
            warmed = (await http.post("/infill", json={**body, "n_predict": 0})).json()
        assert found["content"] == own.text == "".join(piece["content"] for piece in pieces)
        assert found["suffix_read"] is False and found["stop"] is True and pieces[-1]["stop"] is True
        assert found["tokens_predicted"] == own.usage.completion_tokens
        assert warmed["content"] == "" and found["ignored"] == ["samplers"]

    async def test_tokenizer(self, app, llm):
        with asking(app) as http:
            ids = (await http.post("/tokenize", json={"prompt": PROMPT})).json()["tokens"]
            text = (await http.post("/detokenize", json={"tokens": ids})).json()["prompt"]
            end = (await http.post("/tokenize", json={"prompt": "</s>"})).json()["tokens"]
            info = (await http.get("/tokenizer_info")).json()
        assert ids == llm.tokenizer(PROMPT).input_ids and text == PROMPT
        assert end == [llm.tokenizer.eos_token_id] and info["eos_token"] == "</s>"


class TestAbout:
    async def test_models_health_metrics(self, app, client):
        assert [model.id async for model in client.models.list()] == ["tiny"]
        assert (await client.models.retrieve("tiny")).id == "tiny"
        with pytest.raises(openai.NotFoundError) as caught:
            await client.completions.create(model="other", prompt="x")
        assert caught.value.code == "model_not_found"
        await client.completions.create(model="tiny", prompt=PROMPT, max_tokens=2)
        with asking(app) as http:
            health = await http.get("/health")
            said = (await http.get("/metrics")).text
        assert (health.status_code, health.json()["status"]) == (200, "ok")
        assert 'genlm_bytes_requests_total{path="/v1/completions",status="200"} 1.0' in said
        assert 'genlm_bytes_requests_total{path="/v1/completions",status="404"} 1.0' in said
        for name in ("forwards_total", "tokens_run_total", "cache_bytes"):
            assert f'genlm_bytes_{name}{{model="tiny"}}' in said
        assert "genlm_bytes_queue 0.0" in said and "genlm_bytes_running 0.0" in said
