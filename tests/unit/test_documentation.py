"""Public names and fields have docstrings, and prose keeps to the word list of CONTRIBUTING."""

from __future__ import annotations

import ast
import builtins
import importlib
import importlib.util
import inspect
import keyword
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from prose import INDEFINITE, METAPHOR, ROOT, find, find_names, words

from edgegap_async.api.validation import EXTRAS

PUBLIC_MODULES = (
    "edgegap_async",
    "edgegap_async.container",
    "edgegap_async.emulator",
    "edgegap_async.observability",
    "edgegap_async.testing",
)
PROSE = tuple(
    ROOT / name
    for name in (
        "README.md",
        ".github",
        "edgegap_async",
        "examples",
        "benchmarks",
        "tests/README.md",
    )
    if (ROOT / name).exists()
)
MAX_INDEFINITE = 1.0  # words in 1,000; the rules are in .github/CONTRIBUTING.md
STILL_TO_DO: tuple[str, ...] = ()
"""Path prefixes that are not checked yet."""


def is_checked(place: object) -> bool:
    """Whether a place such as `edgegap_async/client.py:12` is checked already."""
    return not str(place).startswith(STILL_TO_DO) if STILL_TO_DO else True


# ── docstrings ───────────────────────────────────────────────────────────────────────────────────


class Undocumented:
    """Collects the places of public names without docstring.

    A field counts as documented by a string below it, or by an entry `name: text` in the
    `Args:` or `Attributes:` of its class. A subclass inherits the docstrings of its bases.
    """

    def __init__(self) -> None:
        self.places: list[str] = []
        self._trees: dict[Path, ast.Module] = {}

    def check(self, module: str, name: str) -> None:
        """Checks one exported name."""
        exported = getattr(importlib.import_module(module), name)
        if inspect.isclass(exported):
            inherited: set[str] = set()
            for kind in reversed(inspect.getmro(exported)):
                if kind.__module__.startswith("edgegap_async"):
                    inherited |= self._check_class(kind, inherited)
        elif inspect.isfunction(exported):
            node = self._find(exported.__module__, exported.__name__)
            assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            self._require(ast.get_docstring(node), exported.__module__, node, name)
        elif not name.startswith("__"):
            self._check_constant(name)

    def _check_class(self, kind: type, inherited: set[str]) -> set[str]:
        node = self._find(kind.__module__, kind.__name__)
        assert isinstance(node, ast.ClassDef)
        if not kind.__name__.startswith("_"):
            self._require(ast.get_docstring(node), kind.__module__, node, kind.__name__)
        documented = set[str]()
        for item, name, has_docstring in members(node):
            if has_docstring:
                documented.add(name)
            elif name not in inherited:
                self._require("", kind.__module__, item, f"{kind.__name__}.{name}")
        return documented

    def _check_constant(self, name: str) -> None:
        for path in sorted((ROOT / "edgegap_async").rglob("*.py")):
            body = self._tree(path).body
            for item, following in zip(body, [*body[1:], None], strict=True):
                if (
                    isinstance(item, ast.AnnAssign)
                    and isinstance(item.target, ast.Name)
                    and item.target.id == name
                    and not is_text(following)
                ):
                    self._add(path, item, name)

    def _require(self, docstring: object, module: str, node: ast.stmt, name: str) -> None:
        if not docstring:
            self._add(source(module), node, name)

    def _add(self, path: Path, node: ast.stmt, name: str) -> None:
        place = f"{path.relative_to(ROOT)}:{node.lineno}: {name} has no docstring"
        if place not in self.places:
            self.places.append(place)

    def _find(self, module: str, name: str) -> ast.stmt:
        return next(
            node
            for node in self._tree(source(module)).body
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and node.name == name
        )

    def _tree(self, path: Path) -> ast.Module:
        if path not in self._trees:
            self._trees[path] = ast.parse(path.read_text("utf-8"))
        return self._trees[path]


def members(node: ast.ClassDef) -> Iterator[tuple[ast.stmt, str, bool]]:
    """Yields each public method and annotated field of a class, and whether it is documented."""
    text = ast.get_docstring(node) or ""
    for item, following in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef):
            name, documented = item.name, bool(ast.get_docstring(item))
        elif isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            name = item.target.id
            has_entry = re.search(rf"^ {{4}}{name}: \S", text, re.MULTILINE) is not None
            documented = has_entry or is_text(following)
        else:
            continue
        if not name.startswith("_"):
            yield item, name, documented


def source(module: str) -> Path:
    """Returns the file of a module."""
    return Path(inspect.getfile(importlib.import_module(module)))


def is_text(node: ast.stmt | None) -> bool:
    """Whether a statement is a string literal alone: the docstring of the field above it."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def public_names() -> Iterator[tuple[str, str]]:
    """Yields module and name of every exported name."""
    for module in PUBLIC_MODULES:
        if importlib.util.find_spec(module) is not None:
            for name in getattr(importlib.import_module(module), "__all__", ()):
                yield module, name


def test_every_public_name_and_field_has_a_docstring() -> None:
    undocumented = Undocumented()
    for module, name in public_names():
        undocumented.check(module, name)

    assert [place for place in undocumented.places if is_checked(place)] == []


def test_members_without_docstring_are_found() -> None:
    node = ast.parse(
        '''
class Row:
    """A row.

    Attributes:
        listed: in the text above.
    """

    listed: int
    described: int
    """A field."""
    bare: int
    _private: int

    def method(self): ...
    def documented(self):
        """A method."""
'''
    ).body[0]
    assert isinstance(node, ast.ClassDef)

    assert [(item.lineno, name) for item, name, documented in members(node) if not documented] == [
        (12, "bare"),
        (15, "method"),
    ]


# ── names in prose ───────────────────────────────────────────────────────────────────────────────

NOT_OURS = {
    "America",
    "DataFrame",
    "ExtraAdder",
    "HttpOnly",
    "IPv4",
    "Match",
    "New_York",
    "Raises",
    "Seat",
    "ServerDisconnectedError",
    "__del__",
    "__wrapped__",
    "edgegap_",
    "new_event_loop",
    "pandas",
    "polars",
    "uvloop",
}
"""Words in back-quotes that are no names of the package."""


def names_in_code() -> set[str]:
    """Returns every name in the package and its settings: identifiers, files, words as data."""
    names = set(dir(builtins)) | set(keyword.kwlist)
    for folder in ("examples", "tests"):
        names.update(word for path in (ROOT / folder).rglob("*") for word in path.name.split("."))
    for path in [*(ROOT / "edgegap_async").rglob("*"), ROOT / "pyproject.toml"]:
        names.update(path.name.split("."))
        if path.suffix == ".py":
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                for field in ("id", "attr", "arg", "name", "module", "asname"):
                    if isinstance(word := getattr(node, field, None), str):
                        names.update(word.split("."))
                word = node.value if isinstance(node, ast.Constant) else None
                if isinstance(word, str) and not re.search(r"\s", word):
                    names.update(re.findall(r"\w+", word))
        elif path.suffix in {".js", ".lua", ".toml", ".html"}:
            names.update(re.findall(r"\w+", path.read_text("utf-8")))
    # Effects and members of enums are shown in lower case: `hang_up` for HangUp.
    return names | {re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower() for name in names}


def unknown_names(text: str, known: set[str]) -> Iterator[tuple[int, str]]:
    """Yields line and text of each name in back-quotes that is not known."""
    for number, line in enumerate(text.splitlines(), 1):
        for name in re.findall(r"(?<!`)`([A-Za-z_][\w./]*)`(?!`)", line):
            if not known.issuperset(filter(None, re.split(r"[./]", name))):
                yield number, name


def test_every_name_in_back_quotes_exists() -> None:
    known = names_in_code() | NOT_OURS
    package = ROOT / "edgegap_async"
    unknown = [
        f"{path.relative_to(ROOT)}:{number}: `{name}`"
        for path in [*sorted(package.rglob("*.py")), package / "README.md"]
        for number, name in unknown_names(path.read_text("utf-8"), known)
    ]

    assert unknown == []


def test_a_name_that_is_gone_is_found() -> None:
    text = "`known` and `http/known.py`\n`Gone.known`, ``gone``, `two words`"

    assert list(unknown_names(text, {"known", "http", "py"})) == [(2, "Gone.known")]


# ── prose ────────────────────────────────────────────────────────────────────────────────────────


def test_no_metaphor_stands_in_prose() -> None:
    assert [str(found) for found in find(METAPHOR, PROSE) if is_checked(found)] == []


def test_no_metaphor_stands_in_names() -> None:
    found_names = find_names([ROOT / "edgegap_async", ROOT / "examples"])

    assert [str(found) for found in found_names if is_checked(found)] == []


def test_indefinite_words_are_rare() -> None:
    found = [str(place) for place in find(INDEFINITE, PROSE) if is_checked(place)]

    assert len(found) < MAX_INDEFINITE * words(PROSE) / 1000, found


def test_a_missing_package_is_named_with_the_extra_that_installs_it() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = settings["project"]["optional-dependencies"]

    for package, extra in EXTRAS.items():
        assert any(one.startswith(package.replace("_", "-")) for one in extras[extra]), package


def test_one_function_makes_every_text_that_names_an_extra() -> None:
    makers = set[str]()
    for path in sorted((ROOT / "edgegap_async").rglob("*.py")):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        docstrings = {id(one.value) for one in nodes if isinstance(one, ast.Expr)}
        for node in nodes:
            is_text = isinstance(node, ast.Constant) and id(node) not in docstrings
            if is_text and "edgegap-async[" in ast.unparse(node):
                makers.add(path.relative_to(ROOT).as_posix())

    assert makers == {"edgegap_async/api/validation.py"}
