"""What a look-out has done so far, counted: what told whom, and how late at most."""

from __future__ import annotations

import attrs

from .tracker import ChangeSource

__all__ = ["LagCounter", "WatchStats"]


@attrs.frozen(kw_only=True)
class WatchStats:
    """What a look-out has done so far."""

    waiting: int
    """Deployments that somebody waits for now."""
    looks: int
    """Status looks."""
    sweeps: int
    """Lists."""
    told_by_look: int
    """READY, ERROR or TERMINATED that a status look found."""
    told_by_list: int
    """Likewise, that a list told."""
    told_by_webhook: int
    """Likewise, by a look or a list that a webhook asked for."""
    mean_lag: float
    """Seconds between the look before and the one that found it: it was told no later than that."""
    longest_lag: float
    """The longest of those."""
    webhooks_proven: bool
    """Whether webhooks come, so that looks are rare."""
    list_asked: str
    """How the list is asked: `changed`, `by_id`, `by_page` or `not_at_all`."""


class LagCounter:
    """Counts what was told, and how late."""

    def __init__(self) -> None:
        self._told: dict[ChangeSource, int] = {"look": 0, "list": 0, "webhook": 0}
        self._lag = self._longest_lag = 0.0

    def add(self, told_by: ChangeSource, lag: float) -> None:
        """One more was told, no later than so many seconds."""
        self._told[told_by] += 1
        self._lag += lag
        self._longest_lag = max(self._longest_lag, lag)

    def stats(
        self, *, waiting: int, looks: int, sweeps: int, webhooks_proven: bool, list_asked: str
    ) -> WatchStats:
        """These numbers beside those that the look-out knows."""
        told = sum(self._told.values())
        return WatchStats(
            waiting=waiting,
            looks=looks,
            sweeps=sweeps,
            told_by_look=self._told["look"],
            told_by_list=self._told["list"],
            told_by_webhook=self._told["webhook"],
            mean_lag=self._lag / told if told else 0.0,
            longest_lag=self._longest_lag,
            webhooks_proven=webhooks_proven,
            list_asked=list_asked,
        )
