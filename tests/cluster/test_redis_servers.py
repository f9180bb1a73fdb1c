"""The kinds of servers and the URLs that a cluster may have. Row 83."""

from __future__ import annotations

import contextlib
import re
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trustme
from redis_server import RedisServer, programs, until

from edgegap_async import Cluster
from edgegap_async.api.operations import DEPLOY
from edgegap_async.concurrency import loop_time
from edgegap_async.errors import InvalidRequest

GUIDE = Path(__file__).parents[2] / "examples/README.md"


class CountingReceiver:
    """A receiver that records which hashes are triggered."""

    def __init__(self) -> None:
        self.forward: Callable[[bytes], None] | None = None
        self.triggered: list[bytes] = []

    def trigger(self, key: bytes) -> bool:
        self.triggered.append(key)
        return True


@contextlib.asynccontextmanager
async def serving(directory: Path, *settings: str) -> AsyncIterator[RedisServer]:
    server = RedisServer(directory, *settings)
    await server.start()
    try:
        yield server
    finally:
        await server.kill()


async def check_cluster(*urls: str) -> None:
    """Checks that two programs share permits, and that a webhook arrives once."""
    own, others = CountingReceiver(), CountingReceiver()
    async with Cluster(urls[0]) as here, Cluster(urls[-1]) as there:
        await until(lambda: here.is_shared and there.is_shared and here.programs == 2)
        await here.limits.acquire(DEPLOY)
        await there.limits.acquire(DEPLOY)
        here.webhook_source(own)
        there.webhook_source(others)
        assert others.forward is not None
        began = loop_time()
        others.forward(b"key")
        await until(lambda: bool(own.triggered))
        assert loop_time() - began < 2
        await until(lambda: loop_time() > began + 2.6)  # longer than a read waits
        assert own.triggered == [b"key"]


# ── options ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "options",
    ["protocol=3", "socket_timeout=1", "max_connections=1", "decode_responses=true", "db=2"],
)
async def test_row_83_options_of_a_url_lose_no_webhook(redis: RedisServer, options: str) -> None:
    await check_cluster(f"{redis.url}?{options}")


async def test_an_unknown_option_is_refused_without_being_shown() -> None:
    with pytest.raises(InvalidRequest, match="option that redis-py does not know") as caught:
        Cluster("redis://me:hush@127.0.0.1?hushed=1")

    assert "hush" not in str(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None


@pytest.mark.parametrize(
    "url", ["", "http://localhost", "localhost:6379", "redis://x:port", "redis://[::1"]
)
async def test_a_url_that_is_not_a_redis_url_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(InvalidRequest, match="redis://host:port"):
        Cluster(url)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis+sentinel://127.0.0.1:26379/mymaster", "name the master"),
        ("sentinel://127.0.0.1:26379", "name the master"),
        ("redis+cluster://127.0.0.1:7000", "any node of the Redis Cluster as redis://"),
        ("redis://127.0.0.1:7000,127.0.0.1:7001", "names one host"),
    ],
)
async def test_row_83_urls_that_are_not_supported_are_refused_with_advice(
    url: str, says: str
) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(says)):
        Cluster(url)


# ── servers ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("scheme", ["valkey", "VALKEY"])
async def test_a_valkey_url_works(redis: RedisServer, scheme: str) -> None:
    async with programs(redis.url.replace("redis", scheme), 1) as [cluster]:
        await cluster.limits.acquire(DEPLOY)


async def test_row_83_a_server_behind_a_unix_socket_works(tmp_path: Path) -> None:
    async with serving(tmp_path, "--unixsocket", f"{tmp_path}/redis"):
        await check_cluster(f"unix://{tmp_path}/redis")


async def test_row_83_a_server_with_tls_works_and_its_certificate_is_checked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate = ca.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    tls = ["--tls-cert-file", f"{tmp_path}/cert.pem", "--tls-key-file", f"{tmp_path}/key.pem"]
    tls += ["--tls-ca-cert-file", f"{tmp_path}/ca.pem", "--tls-auth-clients", "no"]
    async with serving(tmp_path, "--port", "0", "--tls-port", "{port}", *tls) as server:
        await check_cluster(f"rediss://localhost:{server.port}?ssl_ca_certs={tmp_path}/ca.pem")
        async with Cluster(f"rediss://localhost:{server.port}") as cluster:
            assert not cluster.is_shared
    assert ssl.SSLCertVerificationError.__name__ in caplog.text or "verify failed" in caplog.text


async def test_row_83_a_redis_cluster_is_followed_to_the_node_that_has_the_keys(
    tmp_path: Path,
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        nodes = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            settings = ["--cluster-enabled", "yes", "--cluster-port", "{free}"]
            nodes.append(await stack.enter_async_context(serving(tmp_path / name, *settings)))
        one, two = nodes
        await one.command("CLUSTER", "ADDSLOTSRANGE", "0", "8191")
        await two.command("CLUSTER", "ADDSLOTSRANGE", "8192", "16383")
        await one.command("CLUSTER", "MEET", "127.0.0.1", str(two.port), str(two.free_port))

        async def is_up() -> bool:
            states = [await node.command("CLUSTER", "INFO") for node in nodes]
            return all("cluster_state:ok" in state for state in states)

        await until(is_up)
        # The keys are on one of the two nodes, so one of the two programs is led to it.
        await check_cluster(one.url, two.url)


async def test_row_83_a_sentinel_is_recognised(
    redis: RedisServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = tmp_path / "sentinel.conf"
    settings.write_text(f"sentinel monitor mymaster 127.0.0.1 {redis.port} 1\n")
    async with (
        serving(tmp_path, str(settings), "--sentinel") as sentinel,
        Cluster(sentinel.url) as cluster,
    ):
        assert not cluster.is_shared
        await cluster.limits.acquire(DEPLOY)

    assert "name the master and not a Sentinel" in caplog.text


# ── rights ────────────────────────────────────────────────────────────────────────────────────────


def guided_rights() -> list[str]:
    """Returns the words of the command that the guide gives for the user of a cluster."""
    [line] = re.findall(r"^ACL SETUSER .*$", GUIDE.read_text("utf-8"), re.MULTILINE)
    return str(line).split()


async def test_row_83_a_user_with_the_rights_of_the_guide_can_do_everything(
    redis: RedisServer,
) -> None:
    words = guided_rights()
    await redis.command(*words)
    password = next(word for word in words if word.startswith(">"))[1:]
    await check_cluster(f"redis://{words[2]}:{password}@127.0.0.1:{redis.port}/1")


# Not at once: `del` is used if the clock of Redis is set back, and `zrem` at the end.
@pytest.mark.parametrize(
    "missing",
    [word for word in guided_rights() if word[0] in "+~" and word not in {"+del", "+zrem"}],
)
async def test_row_83_the_log_names_the_right_that_a_user_lacks(
    redis: RedisServer, missing: str, caplog: pytest.LogCaptureFixture
) -> None:
    words = guided_rights()
    words[words.index(missing)] = "~other" if missing.startswith("~") else f"-{missing[1:]}"
    await redis.command(*words)
    password = next(word for word in words if word.startswith(">"))[1:]
    async with Cluster(f"redis://{words[2]}:{password}@127.0.0.1:{redis.port}/1") as cluster:
        receiver = CountingReceiver()
        cluster.webhook_source(receiver)
        assert receiver.forward is not None
        receiver.forward(b"key")
        if cluster.is_shared or not cluster._connection.is_lost:
            await cluster.limits.acquire(DEPLOY)
        names = missing if missing.startswith("+") else "~{edgegap:"
        await until(lambda: names in caplog.text)

    assert password not in caplog.text


async def test_row_83_a_wrong_password_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        serving(tmp_path, "--requirepass", "canary-right") as server,
        Cluster(f"redis://:canary-wrong@127.0.0.1:{server.port}") as cluster,
    ):
        assert not cluster.is_shared

    assert "the password of the url is refused" in caplog.text
    assert "canary" not in caplog.text
