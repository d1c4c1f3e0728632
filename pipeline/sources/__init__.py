"""Where images come from: detected from the path, or named."""

import os

from pipeline import files
from pipeline.sources.archives import CompressedTar
from pipeline.sources.archives import Tar
from pipeline.sources.archives import Zip
from pipeline.sources.base import Source
from pipeline.sources.base import SourceError
from pipeline.sources.digits import Digits
from pipeline.sources.folder import Folder
from transgan_tf.checked import ConfigError

__all__ = ["Source", "SourceError", "find_source", "kind_of"]

_BY_PATH = {cls.kind: cls for cls in (Folder, Zip, Tar, CompressedTar)}
_SUFFIXES = {
    ".zip": "zip",
    ".tar": "tar",
    ".tar.gz": "tar.gz",
    ".tgz": "tar.gz",
}


def find_source(
    path: str,
    kind: str | None = None,
    split: str | None = None,
    tfds_data_dir: str | None = None,
    usual_split: str = "train",
) -> Source:
    """Returns the source that a path or a name stands for.

    Args:
        path: of a folder, an archive or an LMDB environment; the name of a
            tensorflow-datasets builder; or `"digits"`.
        kind: a source's `kind`; told from the path if left out.
        split: of a builder.
        tfds_data_dir: where builders' data lies.
        usual_split: of a builder, if `split` is left out.

    Raises:
        SourceError: there is nothing, or it cannot be read.
        ConfigError: split or folder of a builder for another kind.
    """
    kind = kind or kind_of(path)
    if kind != "tfds":
        _refuse_builders_flags(kind, split=split, tfds_data_dir=tfds_data_dir)
    if kind == "digits":
        return Digits()
    if kind == "tfds":
        # Imports TensorFlow.
        from pipeline.sources.tfds import Tfds

        return Tfds(path, split or usual_split, tfds_data_dir)
    if not files.is_remote(path) and not os.path.exists(path):
        raise SourceError(f"there is no {kind} {path}: check the path")
    if kind in _SUFFIXES.values() and os.path.isdir(path):
        raise SourceError(
            f"{path} is a folder and no {kind} archive: name the archive, or "
            "say --source_type=folder"
        )
    # Workers may have another working directory.
    path = files.absolute(path)
    if kind == "lmdb":
        # Only here: not every worker of a cluster has LMDB.
        from pipeline.sources.lsun import Lmdb

        return Lmdb(path)
    return _BY_PATH[kind](path)


def _refuse_builders_flags(kind, **flags):
    for flag, value in flags.items():
        if value is not None:
            raise ConfigError(
                f"--{flag} is of tensorflow-datasets' builders, and the "
                f"source is a {kind}: leave it out"
            )


def kind_of(path: str) -> str:
    """Tells a source's kind by its path or name.

    Raises:
        SourceError: there is nothing, or nothing that is known.
    """
    lower = path.lower().rstrip("/")
    for suffix, kind in _SUFFIXES.items():
        if lower.endswith(suffix):
            return kind
    if os.path.isfile(os.path.join(path, "data.mdb")):
        return "lmdb"
    if os.path.isdir(path) or files.is_remote(path):
        return "folder"
    if path == "digits":
        return "digits"
    if os.path.isfile(path):
        raise SourceError(
            f"{path} is neither a folder, nor a .zip, .tar or .tar.gz archive: "
            "name one, or say by --source_type what it is"
        )
    if os.sep not in path.rstrip("/") or path.count("/") == 1:
        return _builder_or_nothing(path)
    raise SourceError(f"there is no folder or archive {path}: check the path")


def _builder_or_nothing(path):
    """Returns `"tfds"` if a builder has that name."""
    import tensorflow_datasets as tfds

    if path.partition("/")[0].partition(":")[0] in tfds.list_builders():
        return "tfds"
    raise SourceError(
        f"{path} is neither a folder or archive nor the name of a "
        "tensorflow-datasets builder: check the path"
    )
