"""For the program inside a deployment: its environment, its tags, and its own end.

`ThisDeployment` belongs here, with what Edgegap tells a game server about the deployment that it
runs in, and the calls that need no API token. What a matchmaker does from outside is in `client`.
"""

from .environment import HostBeacon, MatchmakerMatch
from .idle import Activity
from .this_deployment import ThisDeployment

__all__ = ["Activity", "HostBeacon", "MatchmakerMatch", "ThisDeployment"]
