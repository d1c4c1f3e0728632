"""What the library alone does not bring: told where it is missing."""

import contextlib

from transgan_tf.checked import UserError

# What setup.py's extra `pipeline` brings.
_PACKAGES = (
    "apache_beam",
    "lmdb",
    "tensorflow_datasets",
    "importlib_resources",
)


class MissingPackage(UserError):
    """A package of the extra that is not installed."""


@contextlib.contextmanager
def told_if_missing():
    """Turns the failing import of such a package into one sentence.

    Raises:
        MissingPackage: names the package and the command that installs it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _PACKAGES:
            raise
        raise MissingPackage(
            f"the package {package} is missing: pip install -e '.[pipeline]'"
        ) from None
