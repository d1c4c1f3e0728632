"""InfraValidator: whether a candidate can be served, by serving it.

It is loaded as TensorFlow Serving loads it, and answers one request of each
signature over REST and over gRPC.
"""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline.components.names import SERVING
from pipeline.orchestration.component import TRANSIENT
from pipeline.orchestration.component import Artifact
from serving.client import Client
from serving.client import ServingError
from serving.local import ServerError
from serving.local import served
from serving.versions import CARD
from transgan_tf import cli
from transgan_tf.checked import UserError

BLESSED, NOT_BLESSED = "INFRA_BLESSED", "INFRA_NOT_BLESSED"

_MODEL = "candidate"
# What a server answers, by gRPC's names, when it is the machine that fails.
_OF_THE_MACHINE = ("DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "UNAVAILABLE")


class _Refused(UserError):
    """Why a candidate must not be served."""


def run(model: Artifact, blessing: Path, loading_seconds: float) -> dict:
    """Writes the file of the blessing.

    A refusal for want of time or memory is not kept for later runs.

    Args:
        model: of Trainer.
        blessing: folder of the output.
        loading_seconds: until the server must have loaded it.
    """
    told = {"blessed": 1, "reason": "answers over REST and gRPC"}
    try:
        _check(model.path / SERVING, loading_seconds)
    except Exception as error:
        reason = cli.explain(error)
        if reason is None:
            raise
        told = {"blessed": 0, "reason": reason}
        told[TRANSIENT] = int(_is_of_the_machine(error))
    (blessing / (BLESSED if told["blessed"] else NOT_BLESSED)).touch()
    print("blessed" if told["blessed"] else f"not blessed: {told['reason']}")
    return {"blessing": told}


def _is_of_the_machine(error):
    if isinstance(error, ServingError):
        return error.code in _OF_THE_MACHINE
    return isinstance(error, ServerError) or not isinstance(error, UserError)


def _check(version, seconds):
    """Raises `UserError` unless a version loads and answers."""
    # This process leaves the server room on a GPU.
    os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
    cli.import_tensorflow_quietly()
    from serving.check import check_answers

    # First of all, since it tells at once why a version does not load.
    check_answers(version)
    try:
        card = json.loads((version / CARD).read_text())
        expected = card["config"]["generator"]
    except (OSError, ValueError, KeyError) as error:
        raise _Refused(f"its {CARD} cannot be used ({error!r})") from None
    with _serving(version, seconds) as addresses:
        answers = [_ask(address, expected) for address in addresses]
    for rest, grpc in zip(*answers, strict=True):
        if not np.allclose(rest, grpc, atol=1e-6):
            raise _Refused("REST and gRPC give different images")


@contextlib.contextmanager
def _serving(version, seconds) -> Iterator[tuple[str, str]]:
    """Gives the addresses of a server of the version alone."""
    with tempfile.TemporaryDirectory() as folder:
        model_dir = Path(folder, _MODEL)
        model_dir.mkdir()
        (model_dir / "1").symlink_to(version.resolve())
        with served(model_dir, seconds) as addresses:
            yield addresses


def _ask(address, expected):
    """Returns the answers of each signature, checked, as float32 arrays."""
    side, channels = expected["stages"][-1]["resolution"], expected["channels"]
    z = np.zeros((2, expected["latent_dim"]), "float32")
    with Client(address, _MODEL) as client:
        answers = {
            "sample": client.sample([0, 1]),
            "interpolate": client.interpolate(0, 1, 2),
            "serving_default": client.latents(z),
        }
    for signature, images in answers.items():
        if images.shape != (2, side, side, channels):
            raise _Refused(
                f"the signature {signature} gives images of shape "
                f"{images.shape[1:]}, not {(side, side, channels)}"
            )
        if not np.isfinite(images).all():
            raise _Refused(
                f"the signature {signature} gives what is not finite"
            )
    return [images.astype("float32") for images in answers.values()]
