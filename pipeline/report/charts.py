"""Where the lines of a chart go; the templates draw them as SVG.

Every function returns plain data in the units of the SVG's view box, or None
where there is nothing to draw.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

WIDTH, HEIGHT = 460, 240
LEFT, RIGHT, TOP, BOTTOM = 56, 448, 14, 204

# More points than that are no more than pixels.
MOST_POINTS = 300
MOST_BINS = 64


@dataclass(frozen=True)
class Series:
    """A line of a chart.

    Attributes:
        name: for the legend.
        points: pairs (x, y), by x; those that are not finite leave a gap.
    """

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Scale:
    """A linear or logarithmic map from values to places."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.log:
            low, high, value = map(math.log10, (low, high, value))
        share = (value - low) / (high - low)
        return round(self.start + share * (self.end - self.start), 2)

    def ticks(self) -> list[dict]:
        values = log_ticks if self.log else linear_ticks
        return [
            {"at": self(value), "label": short(value)}
            for value in values(self.low, self.high)
        ]


def line_chart(
    title: str, series: Iterable[Series], x_label: str, log=False, mark=None
) -> dict | None:
    """Lays out lines over one x axis.

    Args:
        title: what the chart shows.
        series: the lines.
        x_label: what stands below the x axis.
        log: whether the y axis is logarithmic; it takes positive values alone.
        mark: a pair (x, y) to be marked, if any.
    """
    lines = [Series(s.name, _drawable(s.points, log)) for s in series]
    lines = [line for line in lines if _finite(line.points)]
    values = [point for line in lines for point in _finite(line.points)]
    if not values:
        return None
    x = _scale([v[0] for v in values], LEFT, RIGHT, pad=0)
    y = _scale([v[1] for v in values], BOTTOM, TOP, pad=0.05, log=log)
    return _frame(title, x, y, x_label) | {
        "lines": [
            {
                "name": line.name,
                "path": _path(line.points, x, y),
                "dots": _dots(line.points, x, y),
            }
            for line in lines
        ],
        "mark": mark and {"x": x(mark[0]), "y": y(mark[1])},
    }


def histogram(title: str, channels: dict[str, list[int]]) -> dict | None:
    """Lays out how often values of 0 to 255 occur, a step line a channel."""
    bins = {n: _merge(counts) for n, counts in channels.items() if any(counts)}
    if not bins:
        return None
    shares = {name: [c / sum(b) for c in b] for name, b in bins.items()}
    x = Scale(0, 256, LEFT, RIGHT)
    top = max(max(values) for values in shares.values())
    y = Scale(0, top * 1.05, BOTTOM, TOP)
    return _frame(title, x, y, "pixel value, 0 to 255") | {
        "lines": [
            {"name": name, "path": _steps(values, x, y), "dots": []}
            for name, values in shares.items()
        ],
        "mark": None,
    }


def linear_ticks(low: float, high: float) -> list[float]:
    """Returns three to eight round numbers in [low, high]."""
    raw = (high - low) / 7
    power = 10.0 ** math.floor(math.log10(raw))
    factors = (1, 2, 2.5, 5, 10)
    step = next(f * power for f in factors if f * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(n * step, 12) for n in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Returns powers of ten in [low, high], with 2 and 5 where they are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if math.log10(high / low) < 2.5 else (1,)
    values = [f * 10.0**power for power in powers for f in factors]
    return [value for value in values if low <= value <= high]


def short(value: float) -> str:
    """Returns a tick's number, thousands and millions as `k` and `M`."""
    for factor, unit in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.4g}{unit}"
    return f"{value:.4g}"


def thin(points) -> tuple[list[tuple[float, float]], int]:
    """Averages neighbours where there are more points than can be seen.

    Returns:
        The points, and how many went into each.
    """
    points = list(points)
    group = math.ceil(len(points) / MOST_POINTS)
    if group <= 1:
        return points, 1
    groups = [points[i : i + group] for i in range(0, len(points), group)]
    return [tuple(map(_mean, zip(*g, strict=True))) for g in groups], group


def _mean(values):
    return sum(values) / len(values)


def _drawable(points, log):
    """Turns values that the axis does not have into gaps."""
    return tuple(
        (x, y if math.isfinite(y) and (y > 0 or not log) else math.nan)
        for x, y in points
    )


def _finite(points):
    return [point for point in points if all(map(math.isfinite, point))]


def _scale(values, start, end, pad, log=False):
    low, high = min(values), max(values)
    if log:
        spread = (high / low) ** pad if high > low else 1.5
        return Scale(low / spread, high * spread, start, end, log=True)
    if low == high:
        # In the middle between nothing and twice as much.
        low, high = sorted((0.0, 2 * low or 1.0))
        pad = 0
    spread = (high - low) * pad
    return Scale(low - spread, high + spread, start, end)


def _frame(title, x, y, x_label):
    return {
        "title": title,
        "width": WIDTH,
        "height": HEIGHT,
        "box": {"left": LEFT, "right": RIGHT, "top": TOP, "bottom": BOTTOM},
        "x_ticks": x.ticks(),
        "y_ticks": y.ticks(),
        "x_label": x_label,
    }


def _path(points, x, y):
    commands, pen = [], "M"
    for point in points:
        if math.isfinite(point[1]):
            commands.append(f"{pen}{x(point[0])} {y(point[1])}")
            pen = "L"
        else:
            pen = "M"
    return "".join(commands)


def _dots(points, x, y):
    """Few points are shown one by one; one alone would draw no line."""
    points = _finite(points)
    if len(points) > 40:
        return []
    return [{"x": x(a), "y": y(b)} for a, b in points]


def _steps(values, x, y):
    width = 256 / len(values)
    path = f"M{x(0)} {y(0)}"
    for index, value in enumerate(values):
        path += f"V{y(value)}H{x((index + 1) * width)}"
    return f"{path}V{y(0)}"


def _merge(counts):
    group = math.ceil(len(counts) / MOST_BINS)
    return [sum(counts[i : i + group]) for i in range(0, len(counts), group)]
