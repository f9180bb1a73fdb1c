"""Finds words that CONTRIBUTING excludes from prose and from names, with their file and line.

Prose is every comment, every docstring, every string of several words (error and log texts), and
every Markdown file; text in backquotes is code. Names are the identifiers of Python files.
`python tests/support/prose.py [PATH …]` prints the words in those files.
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
_IN_NAMES: Final = frozenset(word for word in _METAPHORS if word.isalpha()) | _INFLECTED
_STRING_TOKENS: Final = {tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
"""Since Python 3.12 the texts of an f-string are tokens of their own."""
_STRING_OF_WORDS: Final = re.compile(r"[A-Za-z]+[,;:]?\s+[A-Za-z]{2,}")


class Found(NamedTuple):
    """An excluded word and its place."""

    file: Path
    line: int
    word: str

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line}: {self.word}"


def prose(file: Path) -> Iterator[tuple[int, str]]:
    """Yields each line of prose in a file, with its number."""
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
        is_text = token.type in _STRING_TOKENS and _STRING_OF_WORDS.search(token.string)
        if token.type == tokenize.COMMENT or is_text:
            text = token.string
            if re.match("[rR]?[fF]", text):  # up to Python 3.11 an f-string is one token
                text = re.sub(r"\{[^{}]*\}", "", text)
            for number, line in enumerate(text.splitlines(), token.start[0]):
                yield number, re.sub(r"`[^`]*`", "", line)


def names(file: Path) -> Iterator[tuple[int, str]]:
    """Yields each identifier of a Python file that has an excluded word in it, with its line."""
    if file.suffix == ".py":
        for token in tokenize.generate_tokens(io.StringIO(file.read_text("utf-8")).readline):
            if token.type == tokenize.NAME:
                parts = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", token.string)
                if _IN_NAMES & {part.lower() for part in parts}:
                    yield token.start[0], token.string


def files(paths: Iterable[Path]) -> Iterator[Path]:
    """Yields the Python and Markdown files at or below the paths."""
    for path in paths:
        found = [path] if path.is_file() else sorted([*path.rglob("*.py"), *path.rglob("*.md")])
        yield from (file for file in found if not {".venv", "__pycache__"} & set(file.parts))


def find(pattern: re.Pattern[str], paths: Iterable[Path]) -> list[Found]:
    """Returns every place at which the pattern stands in prose."""
    return [
        Found(file, number, match[0])
        for file in files(paths)
        for number, line in prose(file)
        for match in pattern.finditer(line)
    ]


def find_names(paths: Iterable[Path]) -> list[Found]:
    """Returns every identifier that has an excluded word in it."""
    return [Found(file, line, name) for file in files(paths) for line, name in names(file)]


def words(paths: Iterable[Path]) -> int:
    """Returns how many words of prose the files have."""
    return sum(len(re.findall(r"\w+", line)) for file in files(paths) for _, line in prose(file))


def main() -> None:
    """Prints the excluded words at or below the paths of the command line."""
    paths = [Path(path).resolve() for path in sys.argv[1:]] or [ROOT / "edgegap_async"]
    metaphors, indefinite = find(METAPHOR, paths), find(INDEFINITE, paths)
    in_names = find_names(paths)
    print(*metaphors, *in_names, *indefinite, sep="\n")
    total = words(paths)
    print(
        f"{len(metaphors)} metaphors, {len(in_names)} in names; {len(indefinite)} indefinite words,"
        f" {1000 * len(indefinite) / max(total, 1):.1f} per 1,000 of {total} words"
    )


if __name__ == "__main__":
    main()
