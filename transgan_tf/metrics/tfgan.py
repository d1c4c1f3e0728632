"""The import door to TF-GAN.

`import tensorflow_gan` fails on TensorFlow 2.16 and later, where
`tf.estimator` is gone, and the project has not mended it. Its losses and
evaluation functions do not need the estimator: they import once the two
packages above them are in `sys.modules` with their `__init__` not run.
"""

import importlib
import importlib.util
import pathlib
import sys
import types
import warnings


def import_tfgan(name: str) -> types.ModuleType:
    """Imports a module below `tensorflow_gan.python`.

    Args:
        name: the module's name from there on, such as `"losses.losses_impl"`.

    Raises:
        ImportError: TF-GAN is not installed, or has no such module.
    """
    _open_package("tensorflow_gan", *_package_folders())
    python = [folder / "python" for folder in _package_folders()]
    _open_package("tensorflow_gan.python", *python)
    with warnings.catch_warnings():
        # TensorFlow Hub, which it imports, is warned of by setuptools.
        warnings.filterwarnings("ignore", "pkg_resources is deprecated")
        return importlib.import_module(f"tensorflow_gan.python.{name}")


def _package_folders():
    spec = importlib.util.find_spec("tensorflow_gan")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("TF-GAN is missing: pip install tensorflow-gan")
    return [pathlib.Path(path) for path in spec.submodule_search_locations]


def _open_package(name, *folders):
    if name in sys.modules:
        return
    package = types.ModuleType(name)
    package.__path__ = [str(folder) for folder in folders]
    package.__spec__ = importlib.util.spec_from_loader(
        name, loader=None, is_package=True
    )
    package.__spec__.submodule_search_locations = package.__path__
    sys.modules[name] = package
