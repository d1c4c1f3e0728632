"""How numbers, times and pictures are written in a report."""

import base64
import io
import math
from datetime import UTC
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from PIL import Image

NONE = "–"

# Larger pictures are shrunk, or the file would be slow to open.
MOST_BYTES = 3_000_000
SHRUNK_SIDE = 1024


def number(value) -> str:
    """Returns a number with four digits that count, or a plain text."""
    if value is None:
        return NONE
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if size >= 1e7 or 0 < size < 1e-3:
        return f"{value:.3g}"
    digits = max(0, 3 - math.floor(math.log10(size))) if size else 0
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def size(count: int | None) -> str:
    """Returns a number of bytes, such as `1.5 MB`."""
    if count is None:
        return NONE
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count} bytes"


def moment(text: str | None) -> str:
    """Returns an ISO 8601 time as `2026-01-31 12:00:00 UTC`."""
    if text is None:
        return NONE
    return f"{parse(text):%Y-%m-%d %H:%M:%S} UTC"


def parse(text: str) -> datetime:
    """Reads an ISO 8601 time; one without a zone is of UTC."""
    time = datetime.fromisoformat(text)
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)


def seconds_between(start: str | None, end: str | None) -> float | None:
    """Returns the seconds from one ISO 8601 time to another, if both are."""
    if start is None or end is None:
        return None
    return max(0.0, (parse(end) - parse(start)).total_seconds())


def duration(seconds: float | None) -> str:
    """Returns a time such as `0.4 s`, `12 s`, `3 min 20 s` or `2 h 5 min`."""
    if seconds is None:
        return NONE
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def link(path: Path) -> str:
    """Returns the address of a file, given relative to the report's folder."""
    return quote(path.as_posix().encode("utf-8", "surrogateescape"))


def flatten(values, name="") -> list[tuple[str, str]]:
    """Returns nested plain data as rows such as `("training.steps", "2")`."""
    if isinstance(values, dict) and values:
        items = values.items()
    elif isinstance(values, list) and any(
        isinstance(item, (dict, list)) for item in values
    ):
        items = enumerate(values)
    else:
        return [(name, _plain(values))] if name else []
    rows = []
    for key, value in items:
        rows += flatten(value, f"{name}.{key}" if name else str(key))
    return rows


def _plain(value):
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value == {}:
        return "none"
    return str(value)


def picture(path: Path | None) -> dict | None:
    """Reads a picture for the page.

    Returns:
        `{"source", "width", "height", "shrunk"}` with the file's contents as a
        `data:` address; None if it is not there, or is no whole picture.
    """
    if path is None:
        return None
    try:
        contents = path.read_bytes()
        with Image.open(io.BytesIO(contents)) as image:
            image.load()
            shrunk = len(contents) > MOST_BYTES
            if shrunk:
                contents = _shrink(image)
            kind, (width, height) = image.format.lower(), image.size
    except (OSError, SyntaxError):
        return None
    text = base64.b64encode(contents).decode()
    return {
        "source": f"data:image/{'png' if shrunk else kind};base64,{text}",
        "width": width,
        "height": height,
        "shrunk": shrunk,
    }


def _shrink(image):
    small = image.copy()
    small.thumbnail((SHRUNK_SIDE, SHRUNK_SIDE))
    stream = io.BytesIO()
    small.save(stream, "PNG", optimize=True)
    return stream.getvalue()
