"""The source that makes a run's numbers, hashed module by module, so that an old result is told from a present one.

A module is hashed as Python parses it, without comments, docstrings, formatting and the cards of mechanisms, which
change no number. Only Python files are followed, so that a mechanism of a notebook or a compiled library has no hash.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

MECHANISMS = "models"  # the package whose modules are always followed
HARNESS = "lra"  # tells results apart by versions and keys instead
INSTALLED = ("site-packages", "dist-packages")  # folders of what pip installs
NAMED = 3  # modules that a sentence names; of more it gives the number
DIGITS = 10


def source_of(target: str | None) -> dict[str, str]:
    """Hash the source of a class: its module and what that imports, directly or not, except from installed packages.

    Imports are followed within `models`, the class's own package, and the folder that this package is in.

    Args:
        target: the class's dotted path; None for no class.

    Returns:
        A hash by the name of each module; {} where the class cannot be imported, or is in no file.
    """
    if not target:
        return {}
    module, _, name = target.rpartition(".")
    try:
        kind = getattr(import_module(module), name)
        return dict(_source_of_class(kind)) if isinstance(kind, type) else {}
    except Exception:  # importing runs what the module says, which may raise anything
        return {}


@cache  # one class is one source: an edit of its file changes nothing in a process that has imported it
def _source_of_class(kind: type) -> Mapping[str, str]:
    if _file_of(kind.__module__) is None:
        return {}
    parents = [parent.__module__ for parent in kind.__mro__]
    place = _place_of(kind.__module__)
    own = {MECHANISMS, kind.__module__.partition(".")[0]}
    hashes: dict[str, str] = {}
    waiting = [name for name in parents if _is_followed(name, own, place)]
    while waiting:
        name = waiting.pop()
        path = _file_of(name)
        if name in hashes or path is None:
            continue
        tree = ast.parse(path.read_bytes())
        hashes[name] = hashlib.sha256(_text(tree).encode()).hexdigest()[:DIGITS]
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        waiting += [found for found in _imported(tree, package) if _is_followed(found, own, place)]
    return dict(sorted(hashes.items()))


def changed(before: Mapping[str, str], present: Mapping[str, str]) -> list[str]:
    """Name the modules whose hashes differ, also those that only one of two sources has; none if one is unknown."""
    if not before or not present:
        return []
    return sorted(name for name in {*before, *present} if before.get(name) != present.get(name))


def mixed(before: Mapping[str, str], present: Mapping[str, str]) -> dict[str, str]:
    """Return the source of what one source began and another goes on with, which is equal to neither."""
    if not before or not present:
        return {}
    differing = {name: f"{before.get(name, '')}+{present.get(name, '')}" for name in changed(before, present)}
    return {**before, **differing}


def in_words(modules: list[str]) -> str:
    """Name modules, or the first of many, as the subject of a sentence in the perfect."""
    named, more = modules[:NAMED], len(modules) - NAMED
    text = ", ".join(named) if more > 0 else " and ".join(filter(None, [", ".join(named[:-1]), named[-1]]))
    return f"{text}{f' and {more} more' if more > 0 else ''} {'has' if len(modules) == 1 else 'have'} changed since"


def _place_of(module: str) -> Path | None:
    """Return the folder that a module's top-level package is in; None if pip installed it there."""
    path = _file_of(module)
    if path is None:
        return None
    depth = module.count(".") + (path.name == "__init__.py")
    return None if _is_installed(path) else path.parents[depth]


def _is_followed(name: str, own: set[str], place: Path | None) -> bool:
    top = name.partition(".")[0]
    if top in own:
        return True
    path = None if place is None or top == HARNESS or top in sys.stdlib_module_names else _file_of(top)
    return path is not None and place is not None and path.is_relative_to(place) and not _is_installed(path)


def _is_installed(path: Path) -> bool:
    return not {*INSTALLED}.isdisjoint(path.parts)


def _file_of(name: str) -> Path | None:
    """Return the Python file of a module; None for what is none, or has none."""
    file = getattr(sys.modules.get(name), "__file__", None)
    if file is None:
        with suppress(ImportError, ValueError):  # an attribute of a module, not a module
            file = getattr(find_spec(name), "origin", None)
    path = Path(file).resolve() if file else None
    return path if path and path.suffix == ".py" and path.is_file() else None


def _imported(tree: ast.Module, package: str) -> Iterator[str]:
    """Yield what a module imports: names of modules, and of what may be one or an attribute of one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: package.count(".") + 2 - node.level] if node.level else []
            origin = ".".join([*above, *filter(None, [node.module])])
            yield origin
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def _text(node: Any) -> str:
    """Write a parsed module down, the same by every version of Python: what is empty or absent is left out."""
    if isinstance(node, list):
        return f"[{','.join(_text(item) for item in node if not _says_nothing(item))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = ((name, value) for name, value in ast.iter_fields(node) if value is not None and value != [])
    return f"{type(node).__name__}({','.join(f'{name}={_text(value)}' for name, value in fields)})"


def _says_nothing(statement: Any) -> bool:
    """Say whether a statement changes no number: a docstring, or the card of a mechanism."""
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant)
    return isinstance(statement, ast.Assign) and [getattr(it, "id", "") for it in statement.targets] == ["card"]
