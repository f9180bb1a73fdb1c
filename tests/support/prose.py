"""Finds words in our prose that CONTRIBUTING rules out, with their file and line.

Prose is every comment, every docstring, every string of several words (error and log texts), and
every Markdown file. `python tests/support/prose.py [PATH …]` prints what it finds in them.
"""

from __future__ import annotations

import io
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]

_METAPHORS: Final = {
    "look": "status request, check, read",
    "look-out": "poller",
    "sweep": "list request",
    "roll call": "full list request",
    "rung": "webhook pending",
    "bell": "webhook trigger",
    "wish": "idempotent deploy, request",
    "custody": "ownership",
    "shelf": "ready queue",
    "trial": "deploy backoff, attempt",
    "tally": "counter",
    "proof": "evidence, verified",
    "doubt": "ambiguous, unconfirmed",
    "told": "notified, says",
    "patient": "ignore_wait_limit",
    "grant": "permit, run",
    "spoil": "apply fault",
}
_INFLECTED: Final = {"shelves", "wishes", "tallies", "looking", "looked"}
METAPHOR: Final = re.compile(
    r"\b(?:"
    + "|".join([*(rf"{word}(?:s|es|ed|ing|ful)?" for word in _METAPHORS), *_INFLECTED])
    + r")\b",
    re.IGNORECASE,
)
INDEFINITE: Final = re.compile(
    r"\b(?:nobody|no one|somebody|someone|anybody|anyone|whoever|whomever|whom|whatever|likewise"
    r"|as above|so many|so much|so long|those that|those who|those which|one that|one who"
    r"|he|his|him)\b",
    re.IGNORECASE,
)
_STRING_OF_WORDS: Final = re.compile(r"[A-Za-z]{2,}[,;:]? [A-Za-z]{2,}")


class Found(NamedTuple):
    """A word that is ruled out, and where it stands."""

    file: Path
    line: int
    word: str

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line}: {self.word}"


def prose(file: Path) -> Iterator[tuple[int, str]]:
    """Each line of prose in a file, with its number."""
    text = file.read_text("utf-8")
    if file.suffix == ".md":
        in_code = False
        for number, line in enumerate(text.splitlines(), 1):
            if line.startswith("```"):
                in_code = not in_code
            elif not in_code:
                yield number, re.sub(r"`[^`]*`", "", line)
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        is_text = token.type == tokenize.STRING and _STRING_OF_WORDS.search(token.string)
        if token.type == tokenize.COMMENT or is_text:
            for number, line in enumerate(token.string.splitlines(), token.start[0]):
                yield number, re.sub(r"`[^`]*`", "", line)


def files(paths: Iterable[Path]) -> Iterator[Path]:
    """The Python and Markdown files at or below the paths."""
    for path in paths:
        found = [path] if path.is_file() else sorted([*path.rglob("*.py"), *path.rglob("*.md")])
        yield from (one for one in found if not {".venv", "__pycache__"} & set(one.parts))


def find(pattern: re.Pattern[str], paths: Iterable[Path]) -> list[Found]:
    """Every place at which the pattern stands in prose."""
    return [
        Found(file, number, match[0])
        for file in files(paths)
        for number, line in prose(file)
        for match in pattern.finditer(line)
    ]


def words(paths: Iterable[Path]) -> int:
    """How many words of prose there are."""
    return sum(len(re.findall(r"\w+", line)) for file in files(paths) for _, line in prose(file))


def main() -> None:
    """Prints what is found below the paths of the command line."""
    paths = [Path(path).resolve() for path in sys.argv[1:]] or [ROOT / "edgegap_async"]
    metaphors, indefinite = find(METAPHOR, paths), find(INDEFINITE, paths)
    print(*metaphors, *indefinite, sep="\n")
    total = words(paths)
    print(
        f"{len(metaphors)} metaphors; {len(indefinite)} indefinite words,"
        f" {1000 * len(indefinite) / max(total, 1):.1f} per 1,000 of {total} words"
    )


if __name__ == "__main__":
    main()
