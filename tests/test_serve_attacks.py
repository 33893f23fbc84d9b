"""What broken and ill-willed clients send: each is told what is wrong, in one shape, and nobody waits."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from served import app_of, asking, on_a_port

from genlm.bytes.serve import Keys, gate, protocol

DEEP = '{"a":' * 400 + "1" + "}" * 400
BODIES: list[tuple[str, str | None]] = [
    ('{"prompt": "x", "max_tokens": true}', "max_tokens"),
    ('{"prompt": "x", "max_tokens": -1}', "max_tokens"),
    ('{"prompt": "x", "max_tokens": 1e400}', "max_tokens"),
    ('{"prompt": "x", "max_tokens": 1e30}', "max_tokens"),
    ('{"prompt": "x", "max_tokens": "5"}', "max_tokens"),
    ('{"prompt": "x", "max_tokens": 1.5}', "max_tokens"),
    ('{"prompt": "x", "max_bytes": 0}', "max_bytes"),
    ('{"prompt": "x", "temperature": NaN}', "temperature"),
    ('{"prompt": "x", "temperature": Infinity}', "temperature"),
    ('{"prompt": "x", "temperature": "0"}', "temperature"),
    ('{"prompt": "x", "temperature": true}', "temperature"),
    ('{"prompt": "x", "top_p": -Infinity}', "top_p"),
    ('{"prompt": "x", "stream": "yes"}', "stream"),
    ('{"prompt": "x", "stream": 1}', "stream"),
    ('{"prompt": "x", "logprobs": 21}', "logprobs"),
    ('{"prompt": "x", "logprobs": true}', "logprobs"),
    ('{"prompt": "x", "seed": 1e30}', "seed"),
    ('{"prompt": "x", "n": 1000000000}', "n"),
    ('{"prompt": ["x", "y"], "n": 100, "best_of": 100}', "n"),
    ('{"prompt": "x", "n": 3, "best_of": 2}', "best_of"),
    ('{"prompt": [true]}', "prompt"),
    ('{"prompt": [-1]}', "prompt"),
    ('{"prompt": [1e20]}', "prompt"),
    ('{"prompt": [1.5%s]}' % (",1.5" * 9999), "prompt"),
    ('{"prompt": "\\ud800"}', "prompt"),
    ('{"prompt": "x", "suffix": "\\ud800"}', "suffix"),
    ('{"prompt": "x", "stop": "\\ud800"}', "stop"),
    ('{"prompt": "x", "stop": ["a", 5]}', "stop"),
    ('{"prompt": "x", "\\r\\nX-Y: z": 1}', "\r\nX-Y: z"),
    ('{"prompt": "x"' + "".join(f',"f{i}":1' for i in range(9999)) + "}", "f0"),
    ('{"prompt": "x", "guided_regex": "%s"}' % ("(" * 9999 + ")" * 9999), "guided_regex"),
    ('{"prompt": "x", "guided_regex": "%s"}' % ("a" * 40_000), "guided_regex"),
    ('{"prompt": "x", "guided_regex": "\\ud800"}', "guided_regex"),
    ('{"prompt": "x", "guided_json": ' + DEEP + "}", "guided_json"),
    ('{"prompt": "x", "guided_json": {"type": NaN}}', "guided_json"),
    ('{"prompt": "x", "guided_json": {"$ref": "#/nowhere"}}', "guided_json"),
    ('{"prompt": "x", "guided_json": {"const": "\\ud800"}}', "guided_json"),
    ('{"prompt": "x", "guided_grammar": "start: ("}', "guided_grammar"),
    ('{"prompt": "x", "logit_bias": {"1": "\\ud800"}}', "logit_bias"),
    ('{"prompt": "x", "stream_options": 7}', "stream_options"),
    ('{"prompt": %s}' % ("9" * 5000), None),
    ('{"prompt": "x"} {"prompt": "y"}', None),
    ("[" * 200_000, None),
]  # fmt: skip


def checked(answer: Any, status: int, param: str | None) -> None:
    """One error object of OpenAI's shape, which names the field; no traceback, no path."""
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (answer.status_code, error["param"]) == (status, param), error
    assert error["message"] and len(error["message"]) < 600
    assert not any(word in answer.text for word in ("Traceback", ".py", "pydantic"))
    assert all("\r" not in value and "\n" not in value for value in answer.headers.values())


@pytest.fixture(scope="module")
def app(llm: Any) -> Any:
    return app_of(llm)


class TestBodies:
    @pytest.mark.parametrize("body, param", BODIES, ids=[str(i) for i in range(len(BODIES))])
    async def test_each_is_told_its_field(self, app, body, param):
        with asking(app) as http:
            checked(await http.post("/v1/completions", content=body), 400, param)

    async def test_names_stay_in_the_body(self, app):
        body = {"prompt": "x", "model": "\r\nSet-Cookie: a=b\ud800"}
        with asking(app) as http:
            checked(await http.post("/v1/completions", content=json.dumps(body)), 404, "model")

    @pytest.mark.parametrize(
        "path, body, param",
        [
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": "\ud800"}]}, "messages"),
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": 7}]}, "messages"),
            ("/v1/chat/completions", {"messages": [7] * 9999}, "messages"),
            ("/v1/score", {"text": "x", "base": float("nan")}, "base"),
            ("/v1/score", {"text": "x", "base": 1.0}, "base"),
            ("/v1/score", {"text": "x", "spans": [[0, 9]]}, "spans"),
            ("/v1/score", {"text": "x", "spans": [[0]]}, "spans"),
            ("/v1/score", {"text": "x", "words": ["\ud800"]}, "words"),
            ("/v1/score", {"text": "\ud800"}, "text"),
            ("/v1/score", {"text": "x", "context": [-1]}, "context"),
            ("/v1/next", {"prompt": "x", "top": True}, "top"),
            ("/v1/next", {"prompt": "x", "depth": 99}, "depth"),
            ("/v1/next", {"prompt": "x", "depth": 9, "min_prob": 0}, "min_prob"),
            ("/v1/predict", {"prompt": "x", "prefix": "\ud800"}, "prefix"),
            ("/v1/predict", {"prompt": "x", "milliseconds": float("inf")}, "milliseconds"),
            ("/infill", {"input_prefix": "x", "temperature": float("nan")}, "temperature"),
            ("/infill", {"input_prefix": "x", "n_predict": 1e30}, "n_predict"),
            ("/infill", {"input_prefix": "x", "input_suffix": "", "stop": ["\ud800"]}, "stop"),
            ("/infill", {"input_prefix": "\ud800", "input_suffix": ""}, "input_prefix"),
            ("/infill", {"input_sufix": "x", "input_prefix": "x"}, "input_suffix"),
            ("/infill", {"prompt": "x", "input_suffix": ""}, "input_prefix"),
            ("/v1/completions", {"prompt": "x", "stop": ""}, "stop"),
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "stop": [""]}, "stop"),
            ("/tokenize", {"prompt": "\ud800"}, "prompt"),
            ("/detokenize", {"tokens": [10**9]}, "tokens"),
        ],
    )  # fmt: skip
    async def test_of_every_path(self, app, path, body, param):
        with asking(app) as http:
            checked(await http.post(path, content=json.dumps(body)), 400, param)

    @pytest.mark.parametrize(
        "prompt, said",
        [
            (3, "`prompt`: Input should be a valid string, or a valid list."),
            ([{}], "`prompt[0]`: Input should be a valid string, or a valid integer, or a valid list."),
        ],
    )
    async def test_all_that_a_field_may_be_is_said(self, app, prompt, said):
        with asking(app) as http:
            error = (await http.post("/v1/completions", json={"prompt": prompt})).json()["error"]
        assert (error["message"], error["param"]) == (said, "prompt")


KEYS = [
    b"",
    b"Bearer",
    b"Bearer ",
    b"Bearer  k k",
    b"Basic k",
    b"k",
    b"Bearer \xff\xfe",
    b"Bearer " + b"k" * 50_000,
]


@pytest.mark.parametrize("key", KEYS, ids=map(str, range(len(KEYS))))
async def test_keys_that_are_none(llm, key):
    with asking(app_of(llm, keys=Keys(["k"]))) as http:
        checked(await http.get("/v1/models", headers={b"authorization": key}), 401, None)
        checked(await http.get("/v1/models", headers={b"x-api-key": key[7:] or b"x"}), 401, None)
        assert (await http.get("/v1/models", headers={b"authorization": b"bearer k"})).status_code == 200


@pytest.fixture(scope="module")
def where(llm: Any) -> Iterator[tuple[str, int]]:
    with on_a_port(app_of(llm, max_body=2000)) as url:
        host, _, port = url.removeprefix("http://").partition(":")
        yield host, int(port)


def is_whole(said: bytes) -> bool:
    head, _, body = said.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    return length is not None and len(body) >= int(length[1])


def answer_of(made: socket.socket, all_of_it: bool = False) -> bytes:
    """The first answer, or all until the server hangs up."""
    found = b""
    while piece := made.recv(65536):
        found += piece
        if not all_of_it and is_whole(found):
            break
    return found


@pytest.fixture
def sent(where: tuple[str, int]) -> Iterator[Callable[..., bytes]]:
    """What a server says to some bytes."""
    with socket.create_connection(where, timeout=60) as made:

        def send(*pieces: bytes, all_of_it: bool = False) -> bytes:
            for piece in pieces:
                made.sendall(piece)
            return answer_of(made, all_of_it)

        yield send


HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
GOOD = json.dumps({"prompt": "and", "max_tokens": 1, "temperature": 0}).encode()
LENGTH = b"Content-Length: %d\r\n\r\n"


def errors(said: bytes) -> dict[str, Any]:
    head, _, body = said.partition(b"\r\n\r\n")
    assert b"application/json" in head
    found: dict[str, Any] = json.loads(body)["error"]
    assert set(found) == {"message", "type", "param", "code"}
    return {**found, "status": int(head.split()[1])}


class TestSockets:
    @pytest.mark.parametrize(
        "pieces",
        [
            [b"nonsense\r\n\r\n"],
            [b"\x16\x03\x01\x02\x00\x01\x00"],
            [HEAD + b"X: " + b"x" * 70_000],
            [HEAD + b"Content-Length: -1\r\n\r\n"],
            [HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n"],
            [HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"],
            [HEAD + b"Bad Name: x\r\n\r\n"],
        ],
    )  # fmt: skip
    def test_what_is_no_request(self, sent, pieces):
        assert errors(sent(*pieces))["status"] == 400

    def test_a_head_that_does_not_end(self, where, monkeypatch):
        monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.05)
        for begun in (b"", HEAD):
            with socket.create_connection(where, timeout=60) as made:
                made.sendall(begun)
                said = answer_of(made)
            assert errors(said)["status"] == 408

    @pytest.mark.parametrize(
        "rest", [LENGTH % 100 + b'{"prompt":', b"Transfer-Encoding: chunked\r\n\r\n5\r\n{    \r\n"]
    )
    def test_a_body_that_does_not_end(self, sent, rest, monkeypatch):
        monkeypatch.setattr(gate, "BODY_SECONDS", 0.05)
        assert errors(sent(HEAD + rest))["status"] == 408

    def test_a_body_that_goes_on_after_its_answer(self, where, monkeypatch):
        monkeypatch.setattr(protocol, "LINGER_SECONDS", 0.05)
        with socket.create_connection(where, timeout=60) as made:
            made.sendall(HEAD + LENGTH % 10**9)
            assert errors(answer_of(made))["status"] == 413
            with pytest.raises(OSError):
                while True:
                    made.sendall(b" " * 65536)

    def test_pieces_without_end(self, sent):
        assert (
            errors(sent(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"a\r\n          \r\n" * 201))["status"]
            == 413
        )

    def test_requests_on_end(self, sent):
        """Sent without waiting for answers, they are answered in turn; what is wrong ends the connection."""
        good = HEAD + LENGTH % len(GOOD) + GOOD
        bad = HEAD + LENGTH % 2 + b"[]"
        said = sent(good + bad + good + b"GET / nonsense\r\n\r\n", all_of_it=True)
        assert re.findall(rb"HTTP/1.1 (\d+) \w", said) == [b"200", b"400", b"200", b"400"]

    @pytest.mark.parametrize(
        "kind", [b"text/plain", b"multipart/form-data; boundary=x", b"\xff\xff", b"application/xml"]
    )
    def test_whatever_a_body_is_called(self, sent, kind):
        said = sent(
            HEAD + b"Connection: close\r\nContent-Type: " + kind + b"\r\n" + LENGTH % len(GOOD) + GOOD
        )
        assert said.startswith(b"HTTP/1.1 200")

    def test_who_reads_nothing(self, where, monkeypatch):
        """His connection is given up, with what is on its way."""
        monkeypatch.setattr(protocol, "READING_SECONDS", 0.05)
        with socket.socket() as made:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            made.connect(where)
            made.settimeout(60)
            page = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
            with pytest.raises(OSError):
                for _ in range(10_000):
                    made.sendall(page * 20)
