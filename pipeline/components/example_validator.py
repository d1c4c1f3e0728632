"""ExampleValidator: compares statistics with a schema and with earlier ones.

An anomaly stops the run, before a training on images that are not what they
should be.
"""

import json
from dataclasses import asdict
from pathlib import Path

from pipeline.components.drift import measure_drift
from pipeline.components.schema import Schema
from pipeline.orchestration.component import Artifact
from pipeline.orchestration.component import ComponentError
from transgan_tf.checked import from_dict

ANOMALIES, VALID = "anomalies.json", "VALID"


def run(
    statistics: Artifact,
    previous_statistics: Artifact | None,
    anomalies: Path,
    blessing: Path,
    schema: dict,
    max_drift: float | None,
) -> dict:
    """Writes `anomalies.json`, and the file of the blessing if it is empty.

    Args:
        statistics: of the images.
        previous_statistics: the last that were found valid before.
        anomalies, blessing: folders of the outputs.
        schema: fields of `Schema`.
        max_drift: bound on each distance of `measure_drift`; None for none.

    Raises:
        ComponentError: there is an anomaly; the text tells the worst.
    """
    rules, numbers = from_dict(Schema, schema), _read(statistics)
    found = find_anomalies(numbers, rules)
    drift = {}
    if previous_statistics is not None:
        before = _read(previous_statistics)
        # Of other channels they do not compare, and that is no anomaly.
        if before["channels"] == numbers["channels"]:
            drift = measure_drift(before, numbers)
            found += _find_drift(drift, max_drift)
    content = {"schema": asdict(rules), "anomalies": found, "drift": drift}
    path = anomalies / ANOMALIES
    path.write_text(json.dumps(content, indent=2) + "\n")
    if found:
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        raise ComponentError(
            f"the images are not as they should be: {found[0]['description']}"
            f"{more}; see {path}"
        )
    (blessing / VALID).touch()
    print("no anomalies")
    return {"anomalies": {"valid": 1}, "blessing": {"valid": 1}}


def find_anomalies(statistics: dict, schema: Schema) -> list[dict]:
    """Returns what breaks the schema, the worst first.

    Args:
        statistics: content of `statistics.json`.
        schema: the rules.

    Returns:
        `feature`, `kind` and `description` of each.
    """
    train = statistics["splits"]["train"]
    found = [
        _anomaly(
            name,
            "other value",
            f"{name} is {statistics[name]}, not {getattr(schema, name)}",
        )
        for name in ("image_size", "channels")
        if statistics[name] != getattr(schema, name)
    ]
    if train["count"] < schema.min_images:
        told = f"{train['count']:,} images to train on, fewer than the "
        told += f"{schema.min_images:,} that are needed"
        found.append(_anomaly("images", "too few", told))
    for number, channel in enumerate(train["channels"]):
        deviation = channel["deviation"]
        if deviation <= schema.min_deviation:
            told = f"the values of channel {number} deviate by {deviation:.3g}"
            told += f", not by more than {schema.min_deviation:g}"
            feature = f"channel {number}"
            found.append(_anomaly(feature, "too uniform", told))
    found += _find_labels(statistics, schema)
    return found + _find_shares(statistics, schema)


def _find_labels(statistics, schema):
    if schema.classes is None:
        return []
    seen = {
        label: count
        for split in statistics["splits"].values()
        for label, count in split["labels"].items()
        if count and label not in schema.classes
    }
    return [
        _anomaly(
            "labels", "unexpected value", f"{count:,} images are of {label!r}"
        )
        for label, count in sorted(seen.items())
    ]


def _find_shares(statistics, schema):
    kept = sum(split["count"] for split in statistics["splits"].values())
    bad, same = statistics["quarantined"], statistics["duplicates"]
    left_out = sum(statistics["left_out"].values())
    shares = (
        ("quarantined", "are bad", bad, kept + bad + left_out),
        ("duplicates", "repeat others", same, kept),
    )
    found = []
    for name, what, count, images in shares:
        bound = getattr(schema, f"max_{name}")
        if count > bound * images:
            told = f"{count:,} of {images:,} images {what}, more than the "
            told += f"share of {bound:g}"
            found.append(_anomaly(name, "too many", told))
    return found


def _find_drift(drift, bound):
    """Returns the distances above the bound as anomalies, greatest first."""
    above = [
        (distance, feature)
        for feature, distance in drift.items()
        if bound is not None and distance > bound
    ]
    return [
        _anomaly(
            feature,
            "drift",
            f"{feature}: the distance to the images before is {distance:.3g}"
            f", more than {bound:g}",
        )
        for distance, feature in sorted(above, reverse=True)
    ]


def _anomaly(feature, kind, description):
    return {"feature": feature, "kind": kind, "description": description}


def _read(statistics: Artifact):
    return json.loads((statistics.path / "statistics.json").read_text())
