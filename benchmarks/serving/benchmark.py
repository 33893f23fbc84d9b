"""A server under load: 64 clients for two minutes, some of them rude; and 16 at once against one by one.

What each prompt goes on with is computed in this process, one prompt at a time: for half of the requests
before the load, for the others after it.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter

from common.alternate import Comparison
from common.machine import machine
from common.options import Options
from common.results import Report, Table
from common.worker import Clock
from common.worker import versions as package_versions
from serving.http import Client
from serving.load import Asked, Load, body_of
from serving.server import Held, Served
from serving.texts import TOKENS, Alone, Prompts

from genlm.bytes import ByteLM
from genlm.bytes.models import load_default_model

__all__ = ["run"]

CLIENTS, SECONDS, BODIES = 64, 120.0, 10_000
AT_ONCE, ROUNDS = 16, 3
FASTER = 3.0
QUEUE = 40
"""Fewer places than clients, so that some are refused."""
GROWTH = 0.05
"""By how much memory beside the caches may have grown from the second quarter of the load to its last, and
from before it to after it."""
MOMENTS = tuple((i + 0.5) / 40 for i in range(40))
"""When the server is looked at, as shares of the load."""


def run(options: Options) -> Report:
    """Start a server, load it, and time it."""
    prompts = Prompts(0)
    texts = max(8, round(CLIENTS * min(1.0, options.scale)))
    with ByteLM(load_default_model(progress=False)) as lm:
        known = [(prompt, Alone.asked(lm, prompt)) for prompt in (prompts.one() for _ in range(texts))]
        with Served("--max-queue", str(QUEUE - AT_ONCE)) as server:
            times = asyncio.run(_alternated(server, prompts, options.rounds or ROUNDS))
            before_load, seen = server.at_rest(), list[Held]()
            load = Load(
                server.host,
                server.port,
                [known[i % texts] for i in range(CLIENTS)],
                prompts,
                SECONDS * options.scale,
                round(BODIES * options.scale),
            )
            before = _counted(server)

            asyncio.run(load.run({share: lambda: seen.append(server.held()) for share in MOMENTS}))
            after = _settled(server, before + load.sent)
            held = {"before": before_load, **_quarters(seen), "after": server.at_rest()}
        verdicts = _compared(lm, load, dict(known))
    return _report(options, load, held, verdicts, times, after - before)


def _quarters(moments: list[Held]) -> dict[str, Held]:
    """Medians over each quarter of a load."""
    each = len(moments) // 4
    return {f"quarter {i + 1}": Held.median(moments[i * each : (i + 1) * each]) for i in range(4)}


async def _alternated(server: Served, prompts: Prompts, rounds: int) -> Comparison:
    """Seconds a token: 16 requests at once, and as many one after another, in turns."""

    async def asked(at_once: int) -> float:
        bodies = [body_of(prompts.one(), TOKENS) for _ in range(AT_ONCE)]
        clients = [Client(server.host, server.port) for _ in range(at_once)]
        tokens = 0

        async def some(client: Client, own: list[bytes]) -> None:
            nonlocal tokens
            for body in own:
                answer = await client.ask("/v1/completions", body)
                tokens += answer.document["usage"]["completion_tokens"]
            client.hang_up()

        begun = time.perf_counter()
        await asyncio.gather(*(some(client, bodies[i::at_once]) for i, client in enumerate(clients)))
        return (time.perf_counter() - begun) / tokens

    await asked(AT_ONCE)  # what is made once
    found = Comparison()
    for turn in range(rounds):
        for at_once in (AT_ONCE, 1) if turn % 2 == 0 else (1, AT_ONCE):
            (found.ours if at_once > 1 else found.theirs).append(await asked(at_once))
    return found


def _counted(server: Served) -> int:
    """Requests for completions that the server has answered, or whose clients have gone."""
    metrics = server.metrics()
    name = 'genlm_bytes_requests_total{path="/v1/completions"'
    return int(sum(value for key, value in metrics.items() if key.startswith(name)))


def _settled(server: Served, expected: int) -> int:
    """The same, once it has noticed who has gone."""
    for _ in range(100):
        found, metrics = _counted(server), server.metrics()
        if found >= expected and not metrics["genlm_bytes_running"] + metrics["genlm_bytes_queue"]:
            break
        time.sleep(0.1)
    return found


def _compared(lm: ByteLM, load: Load, known: dict[str, Alone]) -> Counter[str]:
    """How many answers are right, near, wrong; and of the wrong ones, how many are another's."""
    found = Counter[str]()
    for one in load.asked:
        if one.prompt not in known:
            known[one.prompt] = Alone.asked(lm, one.prompt)
    for one in load.asked:
        verdict = known[one.prompt].verdict(one.text, one.tokens)
        if verdict == "wrong" and _others(one, known):
            verdict = "of another"
        found[verdict] += 1
    return found


def _others(one: Asked, known: dict[str, Alone]) -> bool:
    return any(alone.verdict(one.text, one.tokens) == "right" for alone in known.values())


def _report(
    options: Options,
    load: Load,
    held: dict[str, Held],
    verdicts: Counter[str],
    times: Comparison,
    counted: int,
) -> Report:
    answered = sum(verdicts.values())
    wrong = verdicts["wrong"] + verdicts["of another"]
    left = sum(n for how, n in load.ended.items() if how.endswith(": left"))
    refused, lost = load.ended["malformed: refused"], len(load.lost)
    before, _, second, _, last, after = held.values()
    grown = last.rest / second.rest - 1, after.rest / before.rest - 1
    flat = (
        all(getattr(after, name) <= getattr(before, name) for name in ("tasks", "files"))
        and last.threads <= second.threads
    )
    checks = [
        ("answers as alone, in another process", f"{verdicts['right']} of {answered}", ""),
        ("… that differ from a token on that was as likely", str(verdicts["near"]), ""),
        ("… wrong, or another's", f"{verdicts['wrong']}, {verdicts['of another']}", not wrong),
        ("requests lost", str(lost), not lost),
        (
            "requests sent, and counted by the server, which need not notice one who leaves",
            f"{load.sent:,}, {counted:,}",
            load.sent - left <= counted <= load.sent,
        ),
        (
            "malformed bodies, each an error that names it",
            str(refused),
            refused >= 0.95 * load.malformed_bodies,
        ),
        ("clients that left", str(left), ""),
        ("refused with 429, each with Retry-After", str(len(load.retry_after)), ""),
        (
            "memory beside the caches: the last quarter to the second, after to before",
            ", ".join(f"{each:+.1%}" for each in grown),
            max(grown) <= GROWTH,
        ),
        ("tasks, threads and files no more after than before", "", flat),
        (
            f"{AT_ONCE} at once against one by one, throughput",
            f"{times.ratio:.2f} ({times.quartiles[0]:.2f}–{times.quartiles[1]:.2f})",
            times.ratio >= FASTER,
        ),
    ]
    rows = [[name, value, ok if ok == "" else "pass" if ok else "FAIL"] for name, value, ok in checks]
    moments = Table(["", "memory", "caches", "beside them", "tasks", "threads", "files"])
    moments.rows = [[name, *one.cells()] for name, one in held.items()]
    each = [f"{1e3 * seconds:.1f}" for seconds in (times.our_median, times.their_median)]
    ms = Table(["milliseconds", "requests", "p50", "p95"])
    ms.rows = [
        [name, str(len(some)), *(f"{1e3 * _quantile(some, share):,.0f}" for share in (0.5, 0.95))]
        for name, some in sorted(load.seconds.items())
    ]
    return Report(
        title=f"A server under load: {len(load.known)} clients for {load.duration:.0f} seconds",
        machine=machine(package_versions(Clock())),
        table=Table(["", "", ""], rows),
        more=[moments, ms],
        notes=[
            f"answered: {answered / load.took:.1f} requests a second, of 4 to {TOKENS} tokens each, in "
            f"{load.took:.0f} seconds to the last answer, beside {load.malformed_bodies:,} malformed bodies",
            "the embedded model, float32, in `genlm-bytes serve` with a queue of "
            f"{QUEUE - AT_ONCE}; the clients on the same machine",
            "half of the prompts are a client's own, completed alone beforehand, half new ones, completed "
            "alone afterwards; as likely: within 1e-3 nats, where the order of sums in a batch decides",
            f"at once and one by one: {' and '.join(each)} ms a token, medians of {len(times.ours)} rounds",
            *(f"lost: {line}" for line in load.lost[:5]),
        ],
        missed=[row[0] for row in rows if row[2] == "FAIL"],
    )


def _quantile(values: list[float], share: float) -> float:
    if len(values) < 2:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[round(100 * share) - 1]
