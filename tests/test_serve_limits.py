"""One engine, many clients: what is bounded, what is cancelled, what is refused, and what nobody is told."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from pathlib import Path
from typing import Any

import openai
import pytest
import torch
from served import Call, GatedToy, app_of, asking, openai_client

from genlm.bytes.errors import InvalidValueError
from genlm.bytes.serve import Keys, Settings, read_keys

BODY = {"prompt": "ab", "max_bytes": 2, "temperature": 0}


async def until(condition: Any) -> None:
    """Wait for a state, pass by pass of the loop."""
    while not condition():  # noqa: ASYNC110 (of parts that have no event)
        await asyncio.sleep(0)


EMPTY = {"input_prefix": "", "input_suffix": ""}


class StopsAnswering(GatedToy):
    """A model that hangs after so many forwards, whoever has heard what by then."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.gate.set()
        self.left = after

    async def next_token_logprobs(self, token_ids: Any, lora_name: None = None) -> torch.Tensor:
        self.left -= 1
        if self.left < 0:
            self.gate.clear()
        return await super().next_token_logprobs(token_ids)


class TestManyAtOnce:
    async def test_beyond_the_queue_requests_are_refused_and_told_when_to_try_again(self):
        llm = GatedToy()
        app = app_of(llm, max_concurrent=1, max_queue=1)
        admission = app.state.server.admission
        first = Call(app, "/v1/completions", BODY)
        await until(lambda: admission.running == 1)
        second = Call(app, "/v1/completions", BODY)
        await until(lambda: admission.waiting == 1)
        with asking(app) as http:
            refused = await http.post("/v1/completions", json=BODY)
        assert refused.status_code == 429 and refused.json()["error"]["code"] == "queue_full"
        assert int(refused.headers["retry-after"]) >= 1
        with pytest.raises(openai.RateLimitError):
            await openai_client(app).completions.create(model="tiny", prompt="ab")
        llm.gate.set()
        await asyncio.gather(first.task, second.task)
        assert first.status == second.status == 200
        assert first.document["choices"] == second.document["choices"]
        assert (admission.running, admission.waiting) == (0, 0)

    async def test_a_client_that_is_refused_tries_again_and_is_served(self, monkeypatch):
        llm = GatedToy()
        app = app_of(llm, max_concurrent=1, max_queue=0)
        first = Call(app, "/v1/completions", BODY)
        await llm.begun.wait()
        client = openai_client(app, retries=2)

        async def soon(*_: Any, **__: Any) -> None:
            llm.gate.set()
            await first.task

        monkeypatch.setattr(type(client), "_sleep_for_retry", soon)
        found = await client.completions.create(model="tiny", prompt="ab", temperature=0)
        assert found.choices[0].text

    @pytest.mark.parametrize("stream", [False, True])
    async def test_who_hangs_up_has_nothing_worked_any_longer(self, stream):
        llm = GatedToy()
        app = app_of(llm, max_concurrent=1)
        call = Call(app, "/v1/completions", {**BODY, "stream": stream})
        await llm.begun.wait()
        call.hang_up()
        await call.task
        assert llm.cancelled == 1 and call.status in (None, 499)
        assert app.state.server.admission.running == 0
        llm.gate.set()
        with asking(app) as http:
            assert (await http.post("/v1/completions", json=BODY)).status_code == 200

    async def test_who_hangs_up_in_the_middle_of_a_stream(self):
        llm = GatedToy()
        llm.gate.set()
        app = app_of(llm)

        async def shut(message: dict[str, Any]) -> None:
            if message.get("body"):  # after the first event the model is held, and the client leaves
                llm.gate.clear()
                call.hang_up()

        call = Call(app, "/v1/completions", {"prompt": "ab", "max_bytes": 50, "stream": True}, shut)
        await call.task
        assert len([m for m in call.messages if m.get("body")]) < 50
        assert app.state.server.admission.running == 0

    async def test_who_hangs_up_while_waiting_leaves_the_queue(self):
        llm = GatedToy()
        app = app_of(llm, max_concurrent=1)
        admission = app.state.server.admission
        first, second = (Call(app, "/v1/completions", BODY) for _ in range(2))
        await until(lambda: admission.waiting == 1)
        second.hang_up()
        await second.task
        assert (admission.running, admission.waiting) == (1, 0)
        llm.gate.set()
        await first.task
        assert first.status == 200

    async def test_time_runs_out(self):
        app = app_of(GatedToy(), timeout=0.01)
        with asking(app) as http:
            whole = await http.post("/v1/completions", json=BODY)
        assert whole.status_code == 504 and whole.json()["error"]["type"] == "timeout_error"
        assert whole.headers["x-should-retry"] == "false"
        assert app.state.server.admission.running == 0

    async def test_time_runs_out_in_the_middle_of_a_stream_and_is_said_there(self):
        llm = StopsAnswering(after=20)
        app = app_of(llm, timeout=0.5)
        body = {"prompt": "ab", "max_bytes": 99, "stream": True, "seed": 1}
        call = Call(app, "/v1/completions", body)
        await call.task
        bodies = [m["body"] for m in call.messages if m.get("body")]
        assert json.loads(bodies[-1].removeprefix(b"data: "))["error"]["type"] == "timeout_error"
        assert call.messages[-1]["more_body"] is False

    async def test_requests_at_once_share_forwards_and_have_their_own_answers(self, llm):
        app = app_of(llm)
        prompts = [f"the {letter}" for letter in "abcdefgh"]
        client = openai_client(app)

        async def ask(prompt: str) -> str:
            found = await client.completions.create(model="tiny", prompt=prompt, max_tokens=6, temperature=0)
            return found.choices[0].text

        async def forwards() -> float:
            with asking(app) as http:
                said = (await http.get("/metrics")).text
            found = re.search(r'forwards_total\{model="tiny"\} ([\d.]+)', said)
            assert found is not None
            return float(found[1])

        lm = app.state.server.catalog.get("tiny")[1]
        await lm.forget()
        begun = await forwards()
        one_by_one = [await ask(prompt) for prompt in prompts]
        alone = await forwards() - begun
        await lm.forget()
        begun = await forwards()
        together = await asyncio.gather(*map(ask, prompts))
        assert list(together) == one_by_one
        assert await forwards() - begun < alone / 3


class TestWhoMayAsk:
    async def test_keys(self, llm):
        app = app_of(llm, keys=Keys(["right", "other"]))
        client = openai_client(app, key="wrong")
        with pytest.raises(openai.AuthenticationError) as caught:
            await client.completions.create(model="tiny", prompt="x")
        assert caught.value.code == "invalid_api_key"
        await openai_client(app, key="other").completions.create(model="tiny", prompt="x", max_tokens=1)
        with asking(app) as http:
            assert (await http.get("/health")).status_code == 200
            assert (await http.get("/")).status_code == 200
            assert (await http.get("/metrics")).status_code == 401
            assert (await http.get("/metrics", headers={"x-api-key": "right"})).status_code == 200
            assert (await http.get("/metrics", headers={"Authorization": "Basic right"})).status_code == 401

    def test_keys_are_read_from_a_file_and_the_environment(self, tmp_path, monkeypatch):
        path = tmp_path / "keys.txt"
        path.write_text("# ours\none\n\n two \n")
        monkeypatch.setenv("GENLM_BYTES_API_KEY", "three")
        keys = Keys(read_keys(path))
        assert [keys.allow(key) for key in ("one", "two", "three", "", "# ours", "four")] == [True] * 3 + [
            False
        ] * 3
        path.write_text("# none\n")
        with pytest.raises(ValueError, match="must have a key"):
            read_keys(path)
        with pytest.raises(ValueError, match="cannot be read"):
            read_keys(tmp_path / "absent")
        assert Keys().allow("") and not Keys()

    async def test_other_hosts_and_origins(self, llm):
        app = app_of(llm, hosts=("localhost", "::1"))
        with asking(app) as http:
            for headers, status in (
                ({"host": "localhost:8000"}, 200),
                ({"host": "[::1]:8000"}, 200),
                ({"host": "evil.example"}, 403),
                ({"origin": "http://localhost"}, 200),
                ({"origin": "http://evil.example"}, 403),
                ({"origin": "null"}, 403),
            ):
                assert (await http.get("/v1/models", headers=headers)).status_code == status, headers

    async def test_no_page_elsewhere_is_answered_unless_it_is_allowed(self, llm):
        origin = {"origin": "https://example.org"}
        asked = {
            **origin,
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization",
        }
        with asking(app_of(llm)) as http:
            assert "access-control-allow-origin" not in (await http.get("/health", headers=origin)).headers
            assert (
                "access-control-allow-origin"
                not in (await http.options("/v1/completions", headers=asked)).headers
            )
        with asking(app_of(llm, origins=("https://example.org",), keys=Keys(["k"]))) as http:
            found = await http.get("/health", headers=origin)
            assert found.headers["access-control-allow-origin"] == "https://example.org"
            assert (await http.options("/v1/completions", headers=asked)).status_code == 200
            assert (await http.get("/health", headers={"origin": "https://other.org"})).status_code == 403

    @pytest.mark.parametrize("wrong", ["foo", "example.org", "https://example.org/", "https://Example.org"])
    def test_what_is_no_origin(self, wrong):
        with pytest.raises(InvalidValueError, match="`origins` is"):
            Settings(origins=(wrong,))
        Settings(origins=("*", "null", "http://[::1]:3000", "chrome-extension://abc"))

    async def test_the_page_may_load_nothing_from_elsewhere(self, llm):
        with asking(app_of(llm)) as http:
            headers = (await http.get("/")).headers
            policy = headers["content-security-policy"]
            assert "default-src 'none'" in policy and "unsafe" not in policy
            assert (headers["x-content-type-options"], headers["x-frame-options"]) == ("nosniff", "DENY")
            for name in ("../settings.py", "settings.py", "%2e%2e/settings.py"):
                assert (await http.get(f"/page/{name}")).status_code == 404


class TestSizes:
    async def test_a_body_that_is_too_large(self, llm):
        app = app_of(llm, max_body=100)
        with asking(app) as http:
            said = await http.post("/v1/completions", content=b"x" * 101)
            assert said.status_code == 413 and said.json()["error"]["code"] == "too_large"

            async def pieces() -> Any:  # without saying how much it will be
                for _ in range(5):
                    yield b"x" * 30

            assert (await http.post("/v1/completions", content=pieces())).status_code == 413

    @pytest.mark.parametrize(
        "path, body, param",
        [
            ("/v1/completions", {"prompt": ["ok", "x" * 50]}, "prompt"),
            ("/v1/completions", {"prompt": "x", "suffix": "y" * 50}, "suffix"),
            ("/v1/score", {"text": ["x" * 30, "x" * 30]}, "text"),
            ("/v1/score", {"text": "x", "context": "x" * 50}, "context"),
            ("/v1/next", {"prompt": "x" * 50}, "prompt"),
            ("/infill", {"input_prefix": "x", "input_suffix": "x" * 50}, "input_suffix"),
            ("/infill", {**EMPTY, "input_extra": [{"text": "x" * 50}]}, "input_prefix"),
            ("/tokenize", {"prompt": "x" * 50}, "prompt"),
        ],
    )  # fmt: skip
    async def test_prompts_that_are_too_long(self, llm, path, body, param):
        with asking(app_of(llm, max_prompt=40)) as http:
            said = await http.post(path, json=body)
        assert (said.status_code, said.json()["error"]["param"]) == (400, param)

    @pytest.mark.parametrize(
        "path, body, param",
        [
            ("/v1/completions", {"prompt": "x " * 200}, "prompt"),
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x " * 200}]}, "messages"),
            ("/infill", {"input_prefix": "x " * 200, "input_suffix": ""}, "input_prefix"),
        ],
    )  # fmt: skip
    async def test_prompts_that_are_too_long_for_the_model(self, llm, path, body, param):
        with asking(app_of(llm)) as http:
            error = (await http.post(path, json=body)).json()["error"]
        assert (error["param"], error["code"]) == (param, "context_length_exceeded")
        assert "128 tokens" in error["message"]

    @pytest.mark.parametrize("name", ["max_concurrent", "max_body", "max_prompt", "max_choices", "timeout"])
    def test_limits_that_are_none(self, name):
        with pytest.raises(ValueError, match=name):
            Settings(**{name: 0})


class Broken(GatedToy):
    async def next_token_logprobs(self, token_ids: Any, lora_name: None = None) -> Any:
        raise RuntimeError(f"cannot open {Path(__file__)} for 'a secret prompt'")


class TestWhatIsTold:
    @pytest.mark.parametrize("stream", [False, True])
    async def test_an_error_of_ours_tells_an_id_and_the_log_where(self, stream, caplog):
        with caplog.at_level(logging.INFO, "genlm.bytes.serve"), asking(app_of(Broken())) as http:
            said = await http.post("/v1/completions", json={"prompt": "a secret prompt", "stream": stream})
        assert said.status_code == 500
        for text in (said.text, caplog.text):
            assert said.headers["x-request-id"] in text and "secret" not in text
        assert "RuntimeError" in caplog.text and not re.search(
            r"[/\\]|Traceback|Runtime", said.json()["error"]["message"]
        )

    async def test_logs_have_sizes_and_not_prompts_unless_asked(self, llm, caplog):
        body = {"prompt": "quite secret", "max_tokens": 1}
        with caplog.at_level(logging.INFO, "genlm.bytes.serve"):
            with asking(app_of(llm)) as http:
                said = await http.post("/v1/completions", json=body)
            (line,) = caplog.messages
            assert re.fullmatch(
                rf"{said.headers['x-request-id']} POST /v1/completions 200, \d+ bytes in, \d+ out, \d+ ms",
                line,
            )
            with asking(app_of(llm, log_texts=True)) as http:
                await http.post("/v1/completions", json=body)
            assert "quite secret" in caplog.messages[-1]

    async def test_while_models_load_it_says_so(self):
        from genlm.bytes.serve import Catalog, ModelSpec, create_app

        app = create_app(Catalog([ModelSpec("late")]))
        with asking(app) as http:
            health = await http.get("/health")
            asked = await http.post("/v1/completions", json={"prompt": "x"})
        assert (health.status_code, health.json()) == (503, {"status": "loading", "loading": ["late"]})
        assert asked.status_code == 503 and asked.headers["retry-after"]
