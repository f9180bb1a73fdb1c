"""The URL of a Redis: what is supported, and the client that is made from it.

Supported are one Redis or Valkey server, with TLS or without, by TCP or by unix socket, and a Redis
Cluster through any of its nodes: all keys have one hash tag, so they are on one node, and
`RedisConnection` follows the reply MOVED to it. Sentinels are not supported. What cannot work is
refused before anything is sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from edgegap_async.api.validation import check_kind, needs_package
from edgegap_async.errors import InvalidRequest

if TYPE_CHECKING:
    from redis.asyncio import Redis

_SCHEMES: Final = {
    "redis": "redis",
    "rediss": "rediss",
    "valkey": "redis",
    "valkeys": "rediss",
    "unix": "unix",
}
_FORMS: Final = "url is redis://host:port, or rediss, valkey, valkeys or unix"
# Options of redis-py that the cluster decides itself, whatever the url says: RESP 3 has replies of
# other types, the cluster has its own time limits, and reads for longer than a usual
# socket_timeout, and a read uses a connection for as long as it waits.
_OWN_OPTIONS: Final = {
    "protocol",
    "socket_timeout",
    "decode_responses",
    "health_check_interval",
    "max_connections",
    "retry_on_timeout",
    "timeout",
}


def redis_client(url: str) -> Redis:
    """Returns a client for a URL. Does not connect.

    Raises:
        InvalidRequest: the URL is not supported, or the package `redis` is not installed.
    """
    try:
        from redis.asyncio import Redis  # an extra, and slow to import
        from redis.asyncio.retry import Retry  # an extra
        from redis.backoff import NoBackoff  # an extra
        from redis.exceptions import ConnectionError as Dropped  # an extra
    except ModuleNotFoundError:
        del url
        raise InvalidRequest(needs_package("a cluster", "redis")) from None
    redis, problem = None, _problem(url)
    if not problem:
        try:
            redis = Redis.from_url(
                _with_own_options(url),
                protocol=2,
                # By default redis-py tries ten times in four seconds. One retry is enough for a
                # connection that was closed while idle; `RedisConnection` limits the time.
                retry=Retry(NoBackoff(), 1, (Dropped,)),
            )
            redis.connection_pool.make_connection()  # type: ignore[no-untyped-call] # no I/O
        except ValueError:
            problem = _FORMS
        except TypeError:
            problem = "the url has an option that redis-py does not know"
        except Exception:  # noqa: BLE001 - such as a file of certificates that does not exist
            problem = "the options of the url cannot be used"
    del url
    if redis is None or problem:
        raise InvalidRequest(problem or _FORMS)
    return redis


def without_secrets(url: str) -> str:
    """Returns the URL without user and password, and without its query, which may hold both."""
    check_kind("url", url, str)
    if url is None:
        raise InvalidRequest("a cluster needs the url of its Redis: redis://host:port")
    try:
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    except ValueError:
        return ""


def _with_own_options(url: str) -> str:
    """Returns the URL with a scheme that redis-py knows, and without the options of the cluster."""
    parts = urlsplit(url)
    options = parse_qsl(parts.query, keep_blank_values=True)
    query = urlencode([(name, value) for name, value in options if name not in _OWN_OPTIONS])
    # urlunsplit would drop an empty authority, which a unix socket has.
    return f"{_SCHEMES[parts.scheme]}://{parts.netloc}{parts.path}{'?' if query else ''}{query}"


def _problem(url: str) -> str:
    """Returns why a URL is not supported; empty if it is, as far as can be said of its form."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return _FORMS
    if "sentinel" in parts.scheme:
        return (
            "Sentinels are not supported: name the master, or a proxy or DNS name that leads to it,"
            " as redis://host:port"
        )
    if "cluster" in parts.scheme:
        return "name any node of the Redis Cluster as redis://host:port: the others are found"
    if "," in parts.netloc.rpartition("@")[2]:
        return "url names one host: of a Redis Cluster any node, else the master"
    return "" if parts.scheme in _SCHEMES else _FORMS
