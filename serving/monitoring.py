"""Metrics in Prometheus' text format, under TensorFlow Serving's names.

Its names have colons and no suffix such as `_total`, which Prometheus' client
library would add.
"""

import bisect
import collections
import threading

PATH = "/monitoring/prometheus/metrics"

_REQUESTS = ":tensorflow:serving:request_count"
_LATENCY = ":tensorflow:serving:request_latency"
_RUNTIME = ":tensorflow:serving:runtime_latency"
# Upper bounds of a latency's buckets in microseconds; the last is 20 minutes.
_BOUNDS = [10 * 1.8**power for power in range(33)]


class Metrics:
    """Counts requests and their latencies; any thread may call it."""

    def __init__(self):
        self._lock = threading.Lock()
        self._requests = collections.Counter()
        self._histograms = {_LATENCY: {}, _RUNTIME: {}}

    def count(self, model: str, code: str) -> None:
        """Counts a request that was answered by `code`, such as "OK"."""
        labels = f'model_name="{_escape(model)}",status="{code}"'
        with self._lock:
            self._requests[labels] += 1

    def request_took(
        self, seconds: float, model: str, api: str, entrypoint: str
    ) -> None:
        """Notes the time from a request to its reply.

        Args:
            seconds: of it.
            model: its name.
            api: "Predict" and the like.
            entrypoint: "GRPC" or "REST".
        """
        labels = (
            f'model_name="{_escape(model)}",API="{api}",'
            f'entrypoint="{entrypoint}"'
        )
        self._observe(_LATENCY, labels, seconds)

    def run_took(self, seconds: float, model: str) -> None:
        """Notes the time of a Predict call in TensorFlow."""
        name = _escape(model)
        labels = f'model_name="{name}",API="Predict",runtime="TF1"'
        self._observe(_RUNTIME, labels, seconds)

    def _observe(self, name, labels, seconds):
        with self._lock:
            histogram = self._histograms[name].setdefault(labels, _Histogram())
            histogram.add(seconds * 1e6)

    def text(self) -> str:
        """Returns all metrics in the text format."""
        with self._lock:
            lines = [f"# TYPE {_REQUESTS} counter"]
            for labels, count in sorted(self._requests.items()):
                lines.append(f"{_REQUESTS}{{{labels}}} {count}")
            for name, histograms in self._histograms.items():
                lines.append(f"# TYPE {name} histogram")
                for labels, histogram in sorted(histograms.items()):
                    lines += histogram.lines(name, labels)
        return "\n".join(lines) + "\n"


class _Histogram:
    """Counts microseconds by bucket."""

    def __init__(self):
        self.counts = [0] * (len(_BOUNDS) + 1)
        self.sum = 0.0

    def add(self, microseconds):
        self.counts[bisect.bisect_left(_BOUNDS, microseconds)] += 1
        self.sum += microseconds

    def lines(self, name, labels):
        total = 0
        bounds = [f"{bound:g}" for bound in _BOUNDS] + ["+Inf"]
        for bound, count in zip(bounds, self.counts, strict=True):
            total += count
            yield f'{name}_bucket{{{labels},le="{bound}"}} {total}'
        yield f"{name}_sum{{{labels}}} {self.sum:.0f}"
        yield f"{name}_count{{{labels}}} {total}"


def _escape(value):
    """Escapes a label's value."""
    value = value.replace("\\", "\\\\").replace('"', '\\"')
    return value.replace("\n", "\\n")
