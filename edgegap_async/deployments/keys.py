"""Gives a job that is delivered twice the same deployment: `deploy(…, idempotency_key=…)`.

Problem: a queue delivers a job again if its first worker was too slow or has died, to the same
program or to another one. The two deploys are two intentions, each with an operation tag, and so
make two servers.

Rule: the deploy also carries a key tag: `key-` and 16 characters of a hash of application and key,
20 characters, as for operation tags. Before a deploy the client lists by the key tag:

- A deployment with the tag lives: it is the result, and nothing is sent. "Lives" is what a status
  request says; ERROR and TERMINATING end a deployment, and so free the key.
- None lives: the client deploys. Another program may have done the same meanwhile. So the client
  lists once more right after the deploy, and again after `list_delay`. Of several deployments every
  program keeps the same one, the oldest by operation tag, and stops the others, its own too.

Consequences:

- Within a program one deploy of a key is in progress at a time, and the client remembers what it
  has made: late lists do no harm. Between programs two deliveries that are further apart than lists
  lag get one deployment. Of two that are closer, one may get a handle of a deployment that is then
  stopped: its wait raises `DeploymentTerminated`, and the next delivery gets the other one.
- The owner is not in the hash, because a queue gives the job to any worker. The owner's tag of a
  deployment is renamed to that of the program that gets it, so that `reap` of the first worker
  leaves it alone.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import hashlib
import logging
import weakref
from typing import Final, TypeAlias

from edgegap_async.api.models import Deployment, DeploymentRow
from edgegap_async.api.requests import Filter
from edgegap_async.api.validation import check_text, is_segment
from edgegap_async.errors import BadRequest, CallError, Gone, NotFound, log_fields
from edgegap_async.http.api_client import ApiClient
from edgegap_async.http.resources.deployments import Deployments

from .idempotency import operation_time
from .ownership import OwnedDeployments
from .register import DeploymentRegister, DeploymentState

logger = logging.getLogger(__name__)

_MAX_REMEMBERED: Final = 10_000  # keys whose deployment the client remembers; 3 MB
_MAX_KEY: Final = 255  # characters
_HASH_BYTES: Final = 10  # 16 characters of base 32: 10 million keys collide once in 10 billion

Rank: TypeAlias = tuple[str, str]
"""The order of the deployments of a key: the operation tag, which begins with the time, and the id.
"""


def key_tag(application: str, key: str) -> str:
    """Returns the tag of every deployment of an application that was made with a key.

    Raises:
        InvalidRequest: `key` is not a printable text of 1 to 255 characters.
    """
    check_text("idempotency_key", key, _MAX_KEY)
    content = f"{application}\n{key}".encode(errors="surrogatepass")
    digest = hashlib.blake2b(content, digest_size=_HASH_BYTES).digest()
    return f"key-{base64.b32encode(digest).decode().lower()}"


def _rank(row: DeploymentRow) -> Rank:
    operation_tags = [tag for tag in row.tags if operation_time(tag)]
    return min(operation_tags, default="~"), row.request_id


class KeyedDeployments:
    """Finds the deployment of a key, and stops those that two programs have made too many.

    Args:
        client: lists deployments and asks for their status.
        cleanup: lists deployments also while the client closes.
        register: the deployments of the client.
        owned: stops deployments.
        list_delay: seconds that a new deployment may be missing from lists.
    """

    def __init__(
        self,
        client: ApiClient,
        cleanup: Deployments,
        register: DeploymentRegister,
        owned: OwnedDeployments,
        list_delay: float,
    ) -> None:
        self._client = client
        self._cleanup = cleanup
        self._register = register
        self._owned = owned
        self._list_delay = list_delay
        self._locks = weakref.WeakValueDictionary[str, asyncio.Lock]()
        self._remembered = dict[str, str]()  # the deployment that this client knows of each key

    def lock(self, key: str) -> asyncio.Lock:
        """Returns what a deploy with this key tag holds, until it has its deployment."""
        return self._locks.setdefault(key, asyncio.Lock())

    async def find(self, key: str) -> Deployment | None:
        """Returns the living deployment of a key; None if there is none.

        Raises:
            CallError: a request failed. Nothing was deployed.
            ClientClosed: the client is closed, or was closed meanwhile.
        """
        known, deployments = self._remembered.get(key), self._client.deployments
        if known and self._register.is_live(known) and (one := await _living(deployments, known)):
            return one
        found = await self._keep_one(deployments, key)
        if found is not None:
            self._remember(key, found.request_id)
        return found

    async def settle(self, key: str, own: Rank) -> Deployment | None:
        """Returns the deployment of another program that goes before the client's new one.

        Args:
            key: the key tag.
            own: operation tag and id of the new deployment, which is stopped if it is not kept.

        Returns:
            None if the new one is kept, as far as lists show now.
        """
        other: Deployment | None = None
        try:
            other = await self._keep_one(self._client.deployments, key, own)
        except CallError as error:
            logger.info(
                "the list of deployments with the tag %s could not be read: %s",
                key,
                error.reason,
                extra=log_fields(error, key_tag=key),
            )
        if other is None:
            late = functools.partial(self._settle_late, key, own)
            self._owned.in_background(late, f"a second deployment with the tag {key}")
        self._remember(key, other.request_id if other else own[1])
        return other

    def _remember(self, key: str, request_id: str) -> None:
        self._remembered.pop(key, None)
        self._remembered[key] = request_id
        if len(self._remembered) > _MAX_REMEMBERED:
            del self._remembered[next(iter(self._remembered))]

    async def _settle_late(self, key: str, own: Rank) -> None:
        await self._owned.sleep_until_closed(self._list_delay)
        if not self._register.is_live(own[1]):
            return
        try:
            if await _living(self._cleanup, own[1]):  # else another may have got the key
                await self._keep_one(self._cleanup, key, own)
        except CallError as error:
            logger.warning(
                "two deployments with the tag %s may run, if another program has deployed with the"
                " same key at the same time: %s",
                key,
                error.reason,
                extra=log_fields(error, key_tag=key),
            )

    async def _keep_one(
        self, deployments: Deployments, key: str, own: Rank | None = None
    ) -> Deployment | None:
        """Stops all living deployments of a key but the first in their order.

        Returns:
            The one that is kept; None if there is none, or if it is the client's own.
        """
        filters = [Filter("tags", "in", [key])]
        rows = [row async for row in deployments.list(filters=filters) if self._counts(row, key)]
        ranks = sorted({_rank(row) for row in rows} | ({own} if own else set()))
        kept: str | None = None
        first: Deployment | None = None
        for rank in ranks:
            request_id = rank[1]
            if kept is not None:
                self._stop(request_id, kept, is_own=rank == own)
            elif rank == own or (first := await _living(deployments, request_id)):
                kept = request_id
        return first

    def _counts(self, row: DeploymentRow, key: str) -> bool:
        """Whether a row is a deployment of the key that is not being stopped.

        The deploy of an operation tag that is in progress in this client is being undone.
        """
        is_over = row.status is not None and row.status.is_terminal
        is_undone = any(self._register.state(tag) is DeploymentState.DEPLOYING for tag in row.tags)
        is_unknown = self._register.state(row.request_id) is None
        is_live = is_unknown or self._register.is_live(row.request_id)
        is_usable = is_segment(row.request_id)
        return key in row.tags and is_usable and is_live and not (is_over or is_undone)

    def _stop(self, request_id: str, kept: str, *, is_own: bool) -> None:
        if not is_own or self._register.is_live(request_id):
            reason = "two deploys had the same idempotency key"
            self._owned.stop_surplus(request_id, kept, reason, is_own=is_own)


async def _living(deployments: Deployments, request_id: str) -> Deployment | None:
    """Returns the deployment as it is now; None if it has ended, or will never be READY.

    Raises:
        CallError: the status request failed.
    """
    try:
        deployment = await deployments.get(request_id)
    except Gone:
        return None
    except (BadRequest, NotFound):  # a list shows it, and status requests do not yet
        return Deployment(request_id=request_id)
    return None if deployment.current_status.is_terminal else deployment
