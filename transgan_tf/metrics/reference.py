"""What samples are compared with: real images, or statistics from a file."""

import hashlib
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from transgan_tf.caching import write_arrays
from transgan_tf.checked import UserError
from transgan_tf.metrics.collect import FeatureSet
from transgan_tf.metrics.moments import Gaussian


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


def write_reference(path, reference: Reference) -> None:
    """Writes a reference as `.npz`."""
    write_arrays(path, to_arrays(reference))


def read_reference(path, width: int) -> Reference:
    """Reads a reference, from `write_reference` or from elsewhere.

    Args:
        path: `.npz` file with `mu` `(D,)` and `sigma` `(D, D)`.
        width: D, the number of features of the network at hand.

    Raises:
        ReferenceError: the file is not that.
    """
    try:
        # NumPy would leave a damaged file open.
        with open(path, "rb") as file, np.load(file) as archive:
            arrays = dict(archive)
    except FileNotFoundError:
        raise ReferenceError(f"there is no file {path}") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ReferenceError(f"{path} is not an .npz file ({error})") from None
    except TypeError:
        # A lone array, of an .npy file.
        raise ReferenceError(
            f"{path} holds a single array: statistics are an .npz file with "
            "mu and sigma"
        ) from None
    _check(path, arrays, width)
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return from_arrays(arrays, f"{Path(path).name}, SHA-256 {digest[:16]}")


def _check(path, arrays, width):
    missing = {"mu", "sigma"} - arrays.keys()
    if missing:
        raise ReferenceError(
            f"{path} has no {min(missing)}: statistics are the arrays mu and "
            f"sigma, it has {', '.join(arrays) or 'none'}"
        )
    shapes = arrays["mu"].shape, arrays["sigma"].shape
    if shapes != ((width,), (width, width)):
        raise ReferenceError(
            f"{path} is of another feature network: mu and sigma have shapes "
            f"{shapes[0]} and {shapes[1]}, and the features at hand are {width}"
        )
    for name in ("mu", "sigma"):
        if not np.isfinite(arrays[name]).all():
            raise ReferenceError(f"{path} has numbers in {name} not finite")
    sigma = arrays["sigma"]
    if not np.allclose(sigma, sigma.T, atol=1e-6 * np.abs(sigma).max()):
        raise ReferenceError(f"sigma of {path} is not symmetric")
