"""The machinery of configurations: checking, reading, overriding.

Frozen dataclasses that derive from `Checked` check their fields' types and
rules when they are made. `convert` makes them from plain data, `assign` puts a
command line's `a.b=c` into plain data, `differences` compares two of them.
Every mistake is a `ConfigError` with one sentence that names the field, the
rule and the value.
"""

import dataclasses
import difflib
import json
import math
import types
import typing
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake or a state that the user can mend; its text is one sentence.

    Command lines print it and exit with status 1, without a traceback.
    """


class ConfigError(UserError):
    """A configuration that breaks a rule."""


def require(condition: bool, field: str, rule: str, value) -> None:
    """Raises `ConfigError` naming the field, the rule and the value."""
    if not condition:
        raise ConfigError(f"{field} {rule}, got {value!r}")


def nearest(name: str, choices: Iterable[str]) -> str:
    """Returns a hint such as `; did you mean 'cifar10'?`, or nothing."""
    matches = difflib.get_close_matches(name, list(choices), n=1, cutoff=0.5)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def require_choice(field: str, value: str, choices: Iterable[str]) -> None:
    """Raises `ConfigError` unless `value` is one of `choices`."""
    rule = f"must be one of {', '.join(choices)}"
    if value not in choices:
        hint = nearest(value, choices)
        raise ConfigError(f"{field} {rule}, got {value!r}{hint}")


class Checked:
    """Checks the types of a dataclass's fields, then its `check` rules."""

    # What error messages call this part; the fields' own names follow it.
    prefix = ""

    def __post_init__(self):
        for name, hint in typing.get_type_hints(type(self)).items():
            value = convert(hint, getattr(self, name), self.field(name))
            object.__setattr__(self, name, value)
        self.check()

    def field(self, name: str) -> str:
        return f"{self.prefix}.{name}" if self.prefix else name

    def check(self) -> None:
        """Raises `ConfigError` if the fields break a rule."""

    def require_at_least(self, least, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            rule = f"must be at least {least}"
            require(value >= least, self.field(name), rule, value)


def from_dict(cls: type, values: dict):
    """Makes the configuration class `cls` from plain data, as from JSON."""
    return convert(cls, values, cls.prefix)


def differences(old: Checked, new: Checked) -> list[str]:
    """Returns a line `field: old -> new` for each leaf that differs."""
    before, after = (
        _leaves(dataclasses.asdict(old)),
        _leaves(dataclasses.asdict(new)),
    )
    lines = []
    for path in sorted(before.keys() | after.keys()):
        was, now = before.get(path, "absent"), after.get(path, "absent")
        if was != now:
            lines.append(f"{path}: {was} -> {now}")
    return lines


def _leaves(value, path=""):
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    else:
        return {path: value}
    leaves = {}
    for key, item in items:
        leaves |= _leaves(item, f"{path}.{key}" if path else str(key))
    return leaves


def convert(hint, value, path):
    """Checks `value` against a type hint; makes dataclasses from dicts."""
    if isinstance(hint, types.UnionType):
        (hint,) = [h for h in hint.__args__ if h is not types.NoneType]
        if value is None:
            return None
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else _make(hint, value, path)
    if typing.get_origin(hint) is tuple:
        is_list = isinstance(value, (list, tuple))
        require(is_list, path, "must be a list", value)
        item = hint.__args__[0]
        named = enumerate(value)
        return tuple(convert(item, v, f"{path}[{i}]") for i, v in named)
    if hint is float and type(value) is int:
        value = float(value)
    name = {int: "a whole number", float: "a number", bool: "true or false"}
    rule = f"must be {name.get(hint, 'a text')}"
    require(type(value) is hint, path, rule, value)
    finite = hint is not float or math.isfinite(value)
    require(finite, path, "must be finite", value)
    return value


def _make(cls, values, path):
    """Makes a dataclass from a dict; unknown or missing keys fail."""
    name = path or "the configuration"
    require(isinstance(values, dict), name, "must be an object", values)
    fields = dataclasses.fields(cls)
    names = [field.name for field in fields]
    for key in values:
        if key not in names:
            where = f" in {path}" if path else ""
            raise ConfigError(
                f"unknown key {key!r}{where}{nearest(key, names)}"
            )
    for field in fields:
        optional = (field.default, field.default_factory)
        needed = optional == (dataclasses.MISSING, dataclasses.MISSING)
        if needed and field.name not in values:
            raise ConfigError(f"{name} lacks the key {field.name!r}")
    try:
        return cls(**values)
    except ConfigError as error:
        # A stage does not know its place among the others.
        head, dot, rule = str(error).partition(".")
        if path and dot and head == cls.prefix:
            raise ConfigError(f"{path}.{rule}") from None
        raise


def assign(values, hint, assignment):
    """Puts one `a.b=c` into nested plain data, read by the field's type."""
    path, equals, text = assignment.partition("=")
    if not equals:
        raise ConfigError(f"--set takes field=value, got {assignment!r}")
    keys = path.strip().split(".")
    for key in keys[:-1]:
        values, hint, key = _descend(values, hint, key, path)
        values = values[key]
    values, hint, key = _descend(values, hint, keys[-1], path)
    if isinstance(values, tuple):
        raise ConfigError(f"--set {path} names a whole stage, not its field")
    values[key] = _parse(hint, text.strip(), path)


def _descend(values, hint, key, path):
    """Checks that `key` exists; returns container, its item's hint, key."""
    if typing.get_origin(hint) is tuple:
        if not key.isdecimal() or int(key) >= len(values):
            rule = f"must name a stage by number below {len(values)}"
            raise ConfigError(f"--set {path} {rule}, got {key!r}")
        return values, hint.__args__[0], int(key)
    hints = (
        typing.get_type_hints(hint) if dataclasses.is_dataclass(hint) else {}
    )
    if key not in hints:
        hint = nearest(key, hints)
        raise ConfigError(f"--set names no field: {path!r}{hint}")
    return values, hints[key], key


def _parse(hint, text, path):
    """Reads a command line's text as JSON, or as itself for text fields."""
    if hint is str:
        # Where "none" is a name like others, such as a strategy's.
        return text
    if text.lower() == "none":
        text = "null"
    plain = {"true": True, "false": False, "null": None}
    if text.lower() in plain:
        return plain[text.lower()]
    if hint == str | None:
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        # Left as text: the type check names the field and the rule.
        return text
