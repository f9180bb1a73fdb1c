"""What a look-out has done so far, counted: what told whom, and how late at most."""

from __future__ import annotations

import attrs

from .tracker import ChangeSource

__all__ = ["DelayCounter", "PollerStats"]


@attrs.frozen(kw_only=True)
class PollerStats:
    """What a look-out has done so far."""

    waiting: int
    """Deployments that somebody waits for now."""
    status_requests: int
    """Status looks."""
    list_requests: int
    """Lists."""
    found_by_status: int
    """READY, ERROR or TERMINATED that a status look found."""
    found_by_list: int
    """Likewise, that a list told."""
    found_by_webhook: int
    """Likewise, by a look or a list that a webhook asked for."""
    mean_delay: float
    """Seconds between the look before and the one that found it: it was told no later than that."""
    max_delay: float
    """The longest of those."""
    webhooks_active: bool
    """Whether webhooks come, so that looks are rare."""
    list_mode: str
    """How the list is asked: `changed`, `by_id`, `by_page` or `not_at_all`."""


class DelayCounter:
    """Counts what was told, and how late."""

    def __init__(self) -> None:
        self._told: dict[ChangeSource, int] = {"status": 0, "list": 0, "webhook": 0}
        self._lag = self._longest_lag = 0.0

    def add(self, source: ChangeSource, delay: float) -> None:
        """One more was told, no later than so many seconds."""
        self._told[source] += 1
        self._lag += delay
        self._longest_lag = max(self._longest_lag, delay)

    def stats(
        self,
        *,
        waiting: int,
        status_requests: int,
        list_requests: int,
        webhooks_active: bool,
        list_mode: str,
    ) -> PollerStats:
        """These numbers beside those that the look-out knows."""
        told = sum(self._told.values())
        return PollerStats(
            waiting=waiting,
            status_requests=status_requests,
            list_requests=list_requests,
            found_by_status=self._told["status"],
            found_by_list=self._told["list"],
            found_by_webhook=self._told["webhook"],
            mean_delay=self._lag / told if told else 0.0,
            max_delay=self._longest_lag,
            webhooks_active=webhooks_active,
            list_mode=list_mode,
        )
