"""What samples are compared with: real images, or statistics from a file."""

import hashlib
import json
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path

import numpy as np

from transgan_tf.caching import write_arrays
from transgan_tf.checked import UserError
from transgan_tf.metrics.collect import FeatureSet
from transgan_tf.metrics.moments import Gaussian

# The fingerprint of the network, in files that we write.
_NETWORK = "features_sha256"
# Of a variance that still has a square in float64.
_LARGEST = 1e100


class ReferenceError(UserError):
    """Statistics that cannot be used."""


@dataclass(frozen=True)
class Reference:
    """A `FeatureSet` of real images.

    Attributes:
        features: the set.
        name: what tells these images from others.
    """

    features: FeatureSet
    name: str


def to_arrays(reference: Reference) -> dict[str, np.ndarray]:
    """Returns arrays by name: `mu` and `sigma` as others write them, and ours.

    Ours are `rows`, `count` and `name`; other readers pass over them.
    """
    features = reference.features
    return {
        "mu": features.gaussian.mean,
        "sigma": features.gaussian.covariance,
        "rows": features.rows,
        "count": np.int64(features.count),
        "name": np.array(json.dumps(reference.name)),
    }


def from_arrays(arrays: dict[str, np.ndarray], name: str) -> Reference:
    """Inverts `to_arrays`; of another's arrays, `mu` and `sigma` will do."""
    count = int(arrays.get("count", 0))
    gaussian = Gaussian(
        np.asarray(arrays["mu"], np.float64),
        np.asarray(arrays["sigma"], np.float64),
        count,
    )
    if "name" in arrays:
        name = json.loads(str(arrays["name"]))
    return Reference(FeatureSet(count, gaussian, arrays.get("rows")), name)


def write_reference(path, reference: Reference, fingerprint: str) -> None:
    """Writes a reference as `.npz`, with its feature network's fingerprint."""
    network = {_NETWORK: np.array(fingerprint)}
    write_arrays(path, to_arrays(reference) | network)


def read_reference(path, width: int, fingerprint: str) -> Reference:
    """Reads a reference, from `write_reference` or from elsewhere.

    Args:
        path: `.npz` file with `mu` `(D,)` and `sigma` `(D, D)`.
        width: D, the number of features of the network at hand.
        fingerprint: of that network.

    Raises:
        ReferenceError: the file is not that.
    """
    try:
        # NumPy would leave a damaged file open.
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            with np.load(file) as archive:
                arrays = dict(archive)
        _check(path, arrays, width, fingerprint)
        reference = from_arrays(arrays, "")
    except FileNotFoundError:
        raise ReferenceError(f"there is no file {path}") from None
    except ReferenceError:
        raise
    except Exception as error:
        # A damaged archive makes NumPy and zipfile raise nearly anything.
        raise ReferenceError(
            f"{path} is not an .npz file of statistics, the arrays mu and "
            f"sigma ({error})"
        ) from None
    # Both: the numbers are the file's, whatever it says of itself.
    name = f"{Path(path).name}, SHA-256 {digest[:16]}"
    if reference.name:
        name = f"{reference.name}, from {name}"
    return replace(reference, name=name)


def _check(path, arrays, width, fingerprint):
    missing = {"mu", "sigma"} - arrays.keys()
    if missing:
        raise ReferenceError(
            f"{path} has no {min(missing)}: statistics are the arrays mu and "
            f"sigma, it has {', '.join(arrays) or 'none'}"
        )
    shapes = arrays["mu"].shape, arrays["sigma"].shape
    rows = arrays.get("rows", np.zeros((0, width)))
    of_another = str(arrays.get(_NETWORK, fingerprint)) != fingerprint
    if shapes != ((width,), (width, width)) or of_another:
        raise ReferenceError(
            f"{path} is of another feature network: mu and sigma have shapes "
            f"{shapes[0]} and {shapes[1]}, and the features at hand are "
            f"{width}, of a network with the SHA-256 {fingerprint}"
        )
    for name, array in (("mu", arrays["mu"]), ("sigma", arrays["sigma"])):
        if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
            raise ReferenceError(f"{path} has numbers in {name} not finite")
    if rows.shape[1:] != (width,) or not np.isfinite(rows).all():
        raise ReferenceError(f"rows of {path} are not {width} finite numbers")
    if int(arrays.get("count", 0)) < 0:
        raise ReferenceError(f"count of {path} is below 0")
    _check_covariance(path, np.asarray(arrays["sigma"], np.float64))


def _check_covariance(path, sigma):
    largest = np.abs(sigma).max()
    if not np.allclose(sigma, sigma.T, atol=1e-6 * largest):
        raise ReferenceError(f"sigma of {path} is not symmetric")
    least = np.linalg.eigvalsh(sigma)[0]
    if largest > _LARGEST or least < -1e-3 * largest:
        raise ReferenceError(
            f"sigma of {path} is no covariance: its numbers go up to "
            f"{largest:.3g}, its smallest eigenvalue is {least:.3g}"
        )
