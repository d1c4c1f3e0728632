"""What the library alone does not bring: told where it is missing."""

import contextlib
import importlib.util

from transgan_tf.checked import UserError

# Which of setup.py's extras brings a package.
_EXTRAS = {
    "apache_beam": "pipeline",
    "lmdb": "pipeline",
    "tensorflow_datasets": "pipeline",
    "importlib_resources": "pipeline",
    "jinja2": "pipeline",
    "aiohttp": "serving",
    "grpc": "serving",
    "tensorflow_serving": "serving",
    "urllib3": "serving",
    "kfp": "kfp",
}


class MissingPackage(UserError):
    """A package of the extra that is not installed."""


def require_extra(extra: str) -> None:
    """Raises `MissingPackage` for what is needed only at the end of hours."""
    for package, brought_by in _EXTRAS.items():
        if brought_by == extra and not _is_there(package):
            raise _missing(package)


def _is_there(package):
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:
        # Told by tests, and by who keeps a package from being imported.
        return False


def _missing(package):
    return MissingPackage(
        f"the package {package} is missing: "
        f"pip install -e '.[{_EXTRAS[package]}]'"
    )


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
        raise _missing(package) from None
