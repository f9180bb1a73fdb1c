"""Checks the rendered reference: every public name, method and field is there.

python tests/reference/rendered.py FOLDER     # of `pdoc -o FOLDER edgegap_async …`
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs

MODULES = {
    "edgegap_async": "edgegap_async",
    "edgegap_async.models": "edgegap_async.models",
    "edgegap_async.requests": "edgegap_async.requests",
    "edgegap_async.errors": "edgegap_async.errors",
    "edgegap_async.container": "edgegap_async.container",
    "edgegap_async.emulator": "edgegap_async.emulator",
    "edgegap_async.testing": "edgegap_async.testing.emulator_thread",
}
"""Public modules, and where their page is: pdoc finds no names that are imported later."""


def _page_of(module_name: str) -> str:
    return f"{MODULES[module_name].replace('.', '/')}.html"


def members(name: str, thing: object) -> Iterator[tuple[str, ...]]:
    """For a public thing and each of its members, the ids of which one must be on the page.

    A member stands with the class that defines it, which is the class itself or a base of it.
    """
    yield (name,)
    if not inspect.isclass(thing):
        return
    fields = [field.name for field in attrs.fields(thing)] if attrs.has(thing) else []
    for member in {*fields, *vars(thing)}:
        if not member.startswith("_"):
            yield tuple(f"{one.__name__}.{member}" for one in thing.__mro__)


def main() -> None:
    """Prints what is missing, and fails if anything is."""
    folder, missing, count = Path(sys.argv[1]), list[str](), 0
    ids = {
        page: set(re.findall(r'id="([\w.]+)"', (folder / page).read_text("utf-8")))
        for page in map(_page_of, MODULES)
    }
    everywhere = set().union(*ids.values())  # a base may stand on another page
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        for name in module.__all__:
            for wanted in members(name, getattr(module, name)):
                count += 1
                if (ids[_page_of(module_name)] if wanted == (name,) else everywhere).isdisjoint(
                    wanted
                ):
                    missing.append(f"{module_name}: {wanted[0]}")
    print(*missing, sep="\n")
    print(f"{count} names and fields, {len(missing)} missing")
    sys.exit(bool(missing))


if __name__ == "__main__":
    main()
