"""Pusher: publishes a model as the next version, if both validators bless it.

Whoever serves the folder takes the highest number, so the version appears
whole. Needs no TensorFlow.
"""

import json
import shutil
from collections.abc import Mapping
from datetime import UTC
from datetime import datetime
from pathlib import Path

from pipeline.components.names import METRICS
from pipeline.components.names import SERVING
from pipeline.orchestration.component import HOLDS_WITH
from pipeline.orchestration.component import Artifact
from pipeline.orchestration.component import ComponentError
from serving import versions

# In a version's card: which execution pushed it.
PIPELINE = "pipeline"


def run(
    model: Artifact,
    model_blessing: Artifact,
    infra_blessing: Artifact,
    evaluation: Artifact,
    pushed_model: Path,
    model_dir: str,
    data_licence: str | None,
    keep: int | None,
) -> dict:
    """Pushes the model, unless there is a reason not to.

    Started again after it was killed, it finds the version that it had pushed.

    Args:
        model: of Trainer.
        model_blessing, infra_blessing: of Evaluator and InfraValidator.
        evaluation: of Evaluator, for the model card.
        pushed_model: folder of the output.
        model_dir: folder of the served model.
        data_licence: of the training images, for the model card.
        keep: number of versions to keep; None for all.

    Raises:
        UserError: the folder cannot be written.
    """
    refused = _refused(model_blessing, infra_blessing)
    if refused:
        return _not_pushed(refused)
    origin = {
        "pipeline_root": str(pushed_model.resolve().parents[2]),
        "component": "Pusher",
        "execution": int(pushed_model.name),
        "fingerprint": model.fingerprint,
    }
    with versions.pushing(model_dir):
        version, refused = _known(model_dir, origin, data_licence)
        if refused:
            return _not_pushed(refused)
        if version is None:
            card = _make_card(model, evaluation, model_dir, data_licence)
            version = _push(model, model_dir, card | {PIPELINE: origin})
        _prune(version, keep)
    return _pushed(pushed_model, version, model_blessing.properties["reason"])


def _not_pushed(refused):
    print(f"not pushed: {refused['reason']}")
    return {"pushed_model": {"pushed": 0} | refused}


def _pushed(pushed_model, version, reason):
    """Writes which version it is, and tells it."""
    pushed = {"version": version.name, "destination": str(version)}
    text = json.dumps(pushed, indent=2) + "\n"
    (pushed_model / "pushed.json").write_text(text)
    print(f"pushed: {version}")
    told = {f"pushed_{name}": value for name, value in pushed.items()}
    return {
        "pushed_model": {"pushed": 1, "reason": reason}
        | told
        | {HOLDS_WITH: str(version)}
    }


def _known(model_dir, origin, data_licence):
    """Returns the version that is this model, or None; and the reason, if it
    must not be pushed again.
    """
    found = _cards(model_dir)
    version = _pushed_by(found, origin)
    if version is not None:
        return version, {}
    refused = _rolled_back(found, origin["fingerprint"])
    return _standing(found, origin, data_licence), refused


def why_not_standing(inputs: Mapping, outputs: Mapping) -> str | None:
    """Returns why a push of earlier does not hold any more, or None.

    Since its version is another model now, or an older one of this pipeline's
    or of somebody who went back. What others have pushed to the folder since
    then is no reason to push the same again.

    Args:
        inputs, outputs: artifacts of the execution, by keyword.
    """
    told = outputs["pushed_model"].properties
    if told["pushed"] != 1:
        return None
    version = Path(told["pushed_destination"])
    found = _cards(version.parent)
    origin = {"fingerprint": inputs["model"].fingerprint}
    if _fingerprint(found.get(version, {})) != origin["fingerprint"]:
        return f"{version} is another model now"
    origin["pipeline_root"] = (found[version][PIPELINE]).get("pipeline_root")
    if _standing(found, origin, None) is None:
        return f"{version} is not the newest any more"
    return None


def _cards(model_dir) -> dict[Path, dict]:
    """Returns the cards of what is pushed already, from old to new."""
    pushed = versions.find_versions(model_dir).values()
    return {path: _card(path) for path in pushed}


def _refused(model_blessing, infra_blessing) -> dict:
    """Returns the reason if a validator forbids it."""
    validators = {"Evaluator": model_blessing, "InfraValidator": infra_blessing}
    for name, blessing in validators.items():
        if blessing.properties.get("blessed") != 1:
            reason = blessing.properties["reason"]
            return {"reason": f"{name} did not bless the model: {reason}"}
    return {}


def _pushed_by(found, origin):
    """Returns the version that this execution pushed before it was killed."""
    for path, card in found.items():
        if card.get(PIPELINE) == origin and versions.ORIGIN not in card:
            return path
    return None


def _standing(found, origin, data_licence):
    """Returns the version that is this model, unless there is a later one.

    Later ones by others, who push to the same folder, do not count.
    """
    for path, card in reversed(found.items()):
        licences = (None, card.get("data_licence"))
        same = _fingerprint(card) == origin["fingerprint"]
        if same and data_licence in licences:
            return path
        pushed_by = card.get(PIPELINE) or {}
        own = pushed_by.get("pipeline_root") == origin["pipeline_root"]
        if own or versions.ORIGIN in card:
            return None
    return None


def _rolled_back(found, fingerprint) -> dict:
    """Returns the reason if somebody has gone back from this model.

    That was for one which the validators do not know.
    """
    if not found:
        return {}
    newest = list(found)[-1]
    first = versions.origin_of(newest)
    number = versions.parse_version(newest.name)
    for path, card in found.items():
        between = first < versions.parse_version(path.name) < number
        if between and _fingerprint(card) == fingerprint:
            reason = (
                f"version {path.name} is this model, and was rolled back to "
                f"version {first}: remove {path} to push it again, or train "
                "another model"
            )
            return {"reason": reason, HOLDS_WITH: str(path)}
    return {}


def _make_card(model, evaluation, model_dir, data_licence):
    """Returns the model's card, with what is only known now."""
    card = _card(model.path / SERVING)
    scores = json.loads((evaluation.path / METRICS).read_text())
    card["name"] = Path(model_dir).resolve().name
    card["created"] = datetime.now(UTC).isoformat(timespec="seconds")
    names = ("metrics", "too_few", "protocol")
    card["evaluation"] = {name: scores[name] for name in names}
    card["data_licence"] = data_licence or card["data_licence"]
    return card


def _push(model, model_dir, card):
    """Publishes the model; returns the version's folder."""
    with versions.staging(model_dir) as folder:
        try:
            shutil.copytree(model.path / SERVING, folder, dirs_exist_ok=True)
            versions.write_card(folder, card)
            return versions.publish(folder)
        except (OSError, shutil.Error) as error:
            raise ComponentError(
                f"the model could not be pushed to {model_dir} ({error}): make "
                "room or give yourself permission, and start again"
            ) from None


def _prune(version, keep):
    if keep is None:
        return
    try:
        versions.prune(version, keep)
    except OSError as error:
        raise ComponentError(
            f"{version} was pushed, but older versions could not be removed "
            f"({error.strerror}): give yourself permission, and start again"
        ) from None


def _fingerprint(card):
    return (card.get(PIPELINE) or {}).get("fingerprint")


def _card(version):
    """Returns a version's card; empty for one of another program."""
    try:
        card = json.loads((version / versions.CARD).read_text())
    except (OSError, ValueError):
        return {}
    return card if isinstance(card, dict) else {}
