"""What the library alone does not bring: told where it is missing."""

import contextlib

from transgan_tf.checked import UserError

# Which of setup.py's extras brings a package.
_EXTRAS = {
    "apache_beam": "pipeline",
    "lmdb": "pipeline",
    "tensorflow_datasets": "pipeline",
    "importlib_resources": "pipeline",
    "jinja2": "pipeline",
    "kfp": "kfp",
}


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
        if package not in _EXTRAS:
            raise
        raise MissingPackage(
            f"the package {package} is missing: "
            f"pip install -e '.[{_EXTRAS[package]}]'"
        ) from None
