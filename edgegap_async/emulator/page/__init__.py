"""The page of the emulator at `/`: what runs where, live, and buttons for what can be done.

`Page` serves the files and the stream of changes; `Sessions` lets a browser in. All else the page
reads from the control API and does through it, or through the API's own calls.
"""

from .page import Page
from .sessions import Sessions

__all__ = ["Page", "Sessions"]
