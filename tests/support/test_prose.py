"""The finder of excluded words finds them in prose and in names, and nothing in code."""

from __future__ import annotations

from pathlib import Path

import pytest
from prose import INDEFINITE, METAPHOR, find, find_names

PROGRAM = '''"""Takes a look."""

look = 1  # a sweep
print("one word", f"nobody was told {look}")
print("look")
"""Code: `look`."""
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a program and a document."""
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "text.md").write_text("A wish.\n```python\nlook\n```\nWhoever `asks` is told.\n")
    return tmp_path


def test_words_are_found_in_prose_with_their_lines(folder: Path) -> None:
    def lines(file: str) -> list[tuple[int, str]]:
        found = [*find(METAPHOR, [folder / file]), *find(INDEFINITE, [folder / file])]
        return sorted((place.line, place.word) for place in found)

    assert lines("program.py") == [(1, "look"), (3, "sweep"), (4, "nobody"), (4, "told")]
    assert lines("text.md") == [(1, "wish"), (5, "Whoever"), (5, "told")]


def test_names_are_found(folder: Path) -> None:
    assert {(place.line, place.word) for place in find_names([folder])} >= {(3, "look")}
