"""The version of a component's code: what it imports, itself and by others.

A change of a file that a component does not import leaves what it made in the
cache. So does one of comments, docstrings or layout.
"""

import ast
import functools
import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from pipeline.orchestration.files import digest

ROOMS = ("pipeline", "serving", "transgan_tf")
# Of these the version counts, where they are imported and installed.
PACKAGES = {
    "PIL": "pillow",
    "apache_beam": "apache-beam",
    "keras": "keras",
    "numpy": "numpy",
    "sklearn": "scikit-learn",
    "tensorflow": "tensorflow",
}


def fingerprint(function: str) -> str:
    """Returns the SHA-256 over the code behind `"module:function"`."""
    module = function.partition(":")[0]
    sources, packages = closure(module)
    hashes = {name: _hash(path) for name, path in sources.items()}
    return digest({"sources": hashes, "packages": packages})


def closure(module: str) -> tuple[dict[str, Path], dict[str, str]]:
    """Returns what a module needs, from its source alone.

    Returns:
        Paths of the modules by name: its own, those that it imports in any
        function, those that they import, and the packages that hold them; of
        the three rooms and of the module's own package. And the versions of
        `PACKAGES` that are needed.
    """
    rooms = {*ROOMS, module.partition(".")[0]}
    sources, packages, left = {}, {}, [module]
    while left:
        name = left.pop()
        top = name.partition(".")[0]
        if top in PACKAGES:
            packages[top] = _version(PACKAGES[top])
        path = _find(name) if top in rooms else None
        if path is None or name in sources:
            continue
        sources[name] = path
        left += [name.rpartition(".")[0]] if "." in name else []
        left += _imports(name, path)
    return sources, packages


def _version(distribution):
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "none"


@functools.cache
def _find(name):
    """Returns a module's source, or None if it is no module.

    Without importing any package that holds it.
    """
    top, *rest = name.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None or spec.origin is None:
        return None
    if not rest:
        return Path(spec.origin)
    path = Path(spec.origin).parent.joinpath(*rest)
    for candidate in (path / "__init__.py", path.with_suffix(".py")):
        if candidate.is_file():
            return candidate
    return None


@functools.cache
def _parse(path):
    return ast.parse(path.read_bytes())


@functools.cache
def _hash(path):
    """Returns the SHA-256 of a source without comments and docstrings."""
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        if isinstance(getattr(node, "body", None), list):
            node.body = [line for line in node.body if not _is_text(line)]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _is_text(node):
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


@functools.cache
def _imports(module: str, path: Path) -> tuple[str, ...]:
    """Returns the dotted names that a module imports, at any depth."""
    return tuple(_found(module, path))


def _found(module, path) -> Iterator[str]:
    """Yields them.

    A text that is a module's name, such as `"transgan_tf.train"`, counts: it is
    imported by that name, or started as a process. Not in a package's own file,
    whose names load on first use, and which is part of all that lies below.
    """
    parts, is_package = module.split("."), path.name == "__init__.py"
    for node in ast.walk(_parse(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            up = node.level - is_package
            base = parts[: len(parts) - up] if node.level else []
            base = [*base, node.module] if node.module else base
            yield ".".join(base)
            yield from (".".join([*base, alias.name]) for alias in node.names)
        elif isinstance(node, ast.Constant) and not is_package:
            if _is_name(node.value):
                yield node.value


def _is_name(value):
    """Tells whether a constant looks like a module of the three rooms."""
    if not isinstance(value, str) or "." not in value:
        return False
    parts = value.split(".")
    return parts[0] in ROOMS and all(part.isidentifier() for part in parts)
