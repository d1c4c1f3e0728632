"""The quality gate: whether scores are good enough for a model to be served.

The rules are those of TFX's Evaluator: a value threshold bounds a number, a
change threshold its change from the baseline, the last blessed model; without
a baseline the change is passed over. Without any threshold there is no
blessing. Imports neither TensorFlow nor Beam.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """What came of a model's scores.

    Attributes:
        blessed: whether it may be served.
        judged: whether there was a threshold at all.
        reason: one sentence.
        thresholds: `name`, `kind`, `bound`, `measured` and `passed` of each
            that was applied.
    """

    blessed: bool
    judged: bool
    reason: str
    thresholds: tuple[dict, ...]


def judge(
    fid: float | None,
    baseline_fid: float | None,
    max_fid: float | None,
    max_fid_increase: float | None,
    no_baseline: str = "no model was blessed before",
) -> Verdict:
    """Compares a model's FID with the thresholds.

    Args:
        fid: the model's; None if it could not be scored.
        baseline_fid: the baseline's by the same protocol; None without one.
        max_fid: greatest FID; None for no value threshold.
        max_fid_increase: greatest share by which it may exceed the baseline's;
            None for no change threshold.
        no_baseline: why there is none, for the reason.
    """
    if max_fid is None and max_fid_increase is None:
        return Verdict(
            False,
            False,
            "no threshold is set, so the model was neither blessed nor "
            "refused: give --max_fid or --max_fid_increase",
            (),
        )
    applied = []
    if max_fid is not None:
        applied.append(_threshold("value", max_fid, fid))
    compared = max_fid_increase is not None and baseline_fid is not None
    if compared:
        bound = baseline_fid * (1 + max_fid_increase)
        change = {"baseline": baseline_fid, "increase": max_fid_increase}
        applied.append(_threshold("change", bound, fid) | change)
    # What could not be scored passes nothing, not even no threshold.
    scored = fid is not None and fid == fid
    failed = [t for t in applied if not t["passed"]]
    if not scored:
        reason = "the model could not be scored"
    elif failed:
        reason = "; ".join(map(_describe, failed))
    else:
        reasons = [_describe(t) for t in applied] or [f"FID {fid:.4g}"]
        if max_fid_increase is not None and not compared:
            reasons.append(f"not compared, since {no_baseline}")
        reason = "; ".join(reasons)
    return Verdict(scored and not failed, True, reason, tuple(applied))


def _threshold(kind, bound, measured):
    # Not fulfilled by NaN either.
    passed = measured is not None and measured <= bound
    return {
        "name": "fid",
        "kind": kind,
        "bound": bound,
        "measured": measured,
        "passed": passed,
    }


def _describe(threshold):
    sign = "<=" if threshold["passed"] else ">"
    text = f"FID {threshold['measured']:.4g} {sign} {threshold['bound']:.4g}"
    if threshold["kind"] == "value":
        return f"{text} (--max_fid)"
    return (
        f"{text}, the last blessed model's {threshold['baseline']:.4g} "
        f"{threshold['increase']:+.0%} (--max_fid_increase)"
    )
