"""The router that nginx itself runs, in front of servers that say who they are, all on this machine."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from scipy.stats import chisquare

from rodiu_jax.export import export_plan
from tests.export.fleets import HOSTILE, LABELS, PLAN, SHARES, export_ours, hostile_fleet

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
pytestmark = pytest.mark.skipif(NGINX is None, reason="no nginx here (Debian: nginx-light)")

CLIENT_KEY = "Bearer of-a-client"

UNLIKELY = 1e-6
"""Request ids are random: so seldom the test fails of a router that is right."""


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextmanager
def running(folder: Path, text: str, port: int) -> Iterator[None]:
    """Run nginx in the foreground on a configuration until the block ends."""
    (folder / "nginx.conf").write_text(text)
    command = [
        str(NGINX),
        "-p",
        str(folder),
        "-c",
        str(folder / "nginx.conf"),
        "-e",
        "stderr",
        "-g",
        "daemon off;",
    ]
    log = (folder / "log").open("wb")
    process = subprocess.Popen(command, stderr=log)
    try:
        for _ in range(200):
            assert process.poll() is None, (folder / "log").read_text()
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(timeout=20)
        log.close()


async def serve_name(name: str, port: int) -> asyncio.Server:
    """Answer every request with the server's name, the request's first line and the keys it was sent."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                keys = [x for x in head.decode().split("\r\n") if x.lower().startswith("authorization:")]
                body = "|".join([name, head.split(b" HTTP")[0].decode(), *keys]).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()

    return await asyncio.start_server(answer, "127.0.0.1", port)


async def ask(port: int, path: str, times: int) -> Counter[str]:
    """Ask for a path over one connection that is kept; count the answers, or the status where it is not 200."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    found: Counter[str] = Counter()
    for _ in range(times):
        writer.write(f"GET {path} HTTP/1.1\r\nHost: router\r\nAuthorization: {CLIENT_KEY}\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = int(head.lower().split("content-length: ")[1].split("\r\n")[0])
        body = (await reader.readexactly(length)).decode()
        status = head.split()[1]
        found[body if status == "200" else status] += 1
    writer.close()
    return found


async def count_answers(
    router: int, servers: dict[str, int], paths: dict[str, int]
) -> dict[str, Counter[str]]:
    """Start the servers by name and port, and ask for each path so often, over four connections at a time."""
    started = [await serve_name(name, port) for name, port in servers.items()]
    found = {}
    for path, times in paths.items():
        parts = await asyncio.gather(*(ask(router, path, times // 4) for _ in range(4)))
        found[path] = sum(parts, Counter())
    for server in started:
        server.close()
    return found


def assert_shares(found: Counter[str], expected: dict[str, int]) -> None:
    """Pearson's chi-square of the answers by server against hundredths of a percent."""
    counts = Counter(dict.fromkeys(expected, 0))
    for answer, times in found.items():
        counts[answer.split("|")[0]] += times
    assert set(counts) == set(expected)
    total = sum(counts.values())
    if len(expected) == 1:
        return
    assert (
        chisquare(
            [counts[name] for name in expected], [total * part / 10_000 for part in expected.values()]
        ).pvalue
        > UNLIKELY
    ), counts


@pytest.mark.parametrize("requests", [2_000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_requests_fall_to_pools_in_the_plans_shares(tmp_path: Path, requests: int):
    """20,000 requests of each query type take some 15 s."""
    router, ports = free_port(), {label: free_port() for label in LABELS}
    backends = {label: (f"127.0.0.1:{port}",) for label, port in ports.items()}
    (text,) = export_ours(PLAN, "nginx", backends=backends, listen=router).values()
    paths = {f"/{label}/v1/models?x=1": requests for label in SHARES}
    with running(tmp_path, text, router):
        found = asyncio.run(count_answers(router, ports, paths | {"/nobody/v1/models": 4, "/healthz": 4}))
    assert found.pop("/nobody/v1/models") == {"404": 4}
    assert found.pop("/healthz") == {"": 4}
    for path, label in zip(paths, SHARES, strict=True):
        expected = {"503" if name == "unmet" else name: part for name, part in SHARES[label].items()}
        assert sum(found[path].values()) == requests
        assert_shares(found[path], expected)
        first_lines = {answer.split("|")[1] for answer in found[path] if "|" in answer}
        assert first_lines == {"GET /v1/models?x=1"}, "the query type is not part of the engine's path"


@pytest.mark.parametrize("key", [None, "Bearer of-the-router"])
def test_what_is_unmet_goes_elsewhere(tmp_path: Path, key: str | None):
    if key is not None:
        (tmp_path / "elsewhere-key.conf").write_text(f'set $elsewhere_key "{key}";\n')
    router, ports = free_port(), {label: free_port() for label in (*LABELS, "unmet")}
    backends = {label: (f"127.0.0.1:{ports[label]}",) for label in LABELS}
    elsewhere = f"http://127.0.0.1:{ports['unmet']}/openai/v1"
    (text,) = export_ours(PLAN, "nginx", backends=backends, listen=router, elsewhere=elsewhere).values()
    with running(tmp_path, text, router):
        found = asyncio.run(
            count_answers(router, ports, {"/chat/v1/models": 2_000, "/elsewhere/v1/models": 4})
        )
    assert found["/elsewhere/v1/models"] == {"404": 4}, "nobody but the router sends requests there"
    assert_shares(found["/chat/v1/models"], SHARES["chat"])
    lines = {
        tuple(answer.split("|")[1:]) for answer in found["/chat/v1/models"] if answer.startswith("unmet")
    }
    keys = () if key is None else (f"Authorization: {key}",)
    assert lines == {("GET /openai/v1/models", *keys)}, "a client's key is nobody else's business"
    kept = {answer.split("|")[2] for answer in found["/chat/v1/models"] if not answer.startswith("unmet")}
    assert kept == {f"Authorization: {CLIENT_KEY}"}


def test_connections_to_a_service_are_not_kept():
    """A service picks a replica for each connection; one that is kept sends all requests to the same."""
    (text,) = export_ours(PLAN, "nginx").values()
    assert "proxy_set_header Connection close;" in text
    assert "keepalive 64" not in text
    assert "least_conn" not in text
    (text,) = export_ours(PLAN, "nginx", backends=dict.fromkeys(LABELS, ("10.0.0.1:1",))).values()
    assert text.count("keepalive 64") == text.count("least_conn") == len(LABELS)
    assert "Connection close" not in text


def test_another_api_is_who_it_says_it_is():
    (text,) = export_ours(PLAN, "nginx", elsewhere="https://api.example.com").values()
    assert "proxy_ssl_verify on;" in text
    (text,) = export_ours(PLAN, "nginx", elsewhere="http://127.0.0.1:9").values()
    assert "proxy_ssl" not in text


def test_replicas_of_a_pool_share_its_requests(tmp_path: Path):
    router, ports = free_port(), {str(n): free_port() for n in range(5)}
    hosts = [f"127.0.0.1:{port}" for port in ports.values()]
    backends = {LABELS[0]: (hosts[0],), LABELS[1]: tuple(hosts[1:4]), LABELS[2]: (hosts[4],)}
    (text,) = export_ours(PLAN, "nginx", backends=backends, listen=router).values()
    with running(tmp_path, text, router):
        found = asyncio.run(count_answers(router, ports, {"/code-generation/v1/models": 400}))
    answers = {a.split("|")[0]: n for a, n in found["/code-generation/v1/models"].items()}
    assert set(answers) == {"1", "2", "3"}
    assert sum(answers.values()) == 400
    assert min(answers.values()) > 50


def test_any_name_gives_a_configuration_that_routes(tmp_path: Path):
    plan, catalog = hostile_fleet()
    router, port = free_port(), free_port()
    (text,) = export_plan(plan, "nginx", catalog=catalog, listen=router).values()
    labels = [line.split()[1] for line in text.splitlines() if line.strip().startswith("upstream ")]
    assert len(labels) == len(HOSTILE)
    backends = dict.fromkeys(labels, (f"127.0.0.1:{port}",))
    (text,) = export_plan(plan, "nginx", catalog=catalog, listen=router, backends=backends).values()
    places = [line.split()[1] for line in text.splitlines() if line.strip().startswith("location /")]
    paths = [place for place in places if place != "/"]
    assert len(paths) == len(HOSTILE)
    with running(tmp_path, text, router):
        found = asyncio.run(count_answers(router, {"all": port}, {f"{path}v1/x": 4 for path in paths}))
    assert [dict(answers) for answers in found.values()] == [
        {f"all|GET /v1/x|Authorization: {CLIENT_KEY}": 4}
    ] * len(paths)
