"""PyTorch's .pth files as plain data of NumPy arrays.

Needs PyTorch, the extra `torch`. Files are read in its safe mode: tensors and
plain data, while a file that asks for anything else to be called, as pickles
can, is refused before it is.
"""

import os
import re
import warnings
import zipfile
from pathlib import Path

import numpy as np

from transgan_tf.checked import UserError


class PthError(UserError):
    """A .pth file that cannot be read or written."""


def read(path):
    """Reads a .pth file.

    Args:
        path: of the file. Large tensors stay there until they are used.

    Returns:
        What was saved, tensors as arrays: those of floating point as float32.

    Raises:
        PthError: PyTorch is missing; the file is damaged, is none of
            PyTorch's, or would run code.
        OSError: it cannot be read at all.
    """
    torch = _import_torch()
    # Of the formats, an archive's tensors can be mapped.
    mapped = zipfile.is_zipfile(path)
    try:
        with warnings.catch_warnings(), _plain_globals(torch):
            warnings.simplefilter("ignore")
            content = torch.load(
                path, map_location="cpu", weights_only=True, mmap=mapped
            )
            return _to_numpy(torch, content)
    except (OSError, MemoryError):
        raise
    except Exception as error:
        # Half a dozen kinds, of the archive, the pickle and the tensors.
        raise _refusal(path, error) from None


def write(path, content: dict) -> None:
    """Writes nested dicts of arrays as a .pth file of tensors.

    Raises:
        PthError: PyTorch is missing, or the file cannot be written.
    """
    torch = _import_torch()
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            torch.save(_to_torch(torch, content), file)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        # PyTorch tells of a full disk by a RuntimeError.
        temporary.unlink(missing_ok=True)
        reason = str(error).partition("\n")[0]
        raise PthError(
            f"{path} cannot be written ({reason}): make room, give yourself "
            "permission, or name another file"
        ) from None


def _import_torch():
    try:
        import torch
    except ImportError:
        raise PthError(
            "reading and writing .pth files needs PyTorch: pip install "
            "'transgan-tf[torch]'"
        ) from None
    return torch


def _plain_globals(torch):
    """Allows NumPy's numbers, as which the authors save their FID."""
    scalar = np._core.multiarray.scalar
    # NumPy 1 named it otherwise.
    names = ("numpy._core.multiarray.scalar", "numpy.core.multiarray.scalar")
    dtypes = (np.dtype, np.dtypes.Float32DType, np.dtypes.Float64DType)
    return torch.serialization.safe_globals(
        [*((scalar, name) for name in names), *dtypes]
    )


def _to_numpy(torch, value):
    if isinstance(value, torch.Tensor):
        value = value.detach()
        return (value.float() if value.is_floating_point() else value).numpy()
    if isinstance(value, dict):
        return {key: _to_numpy(torch, item) for key, item in value.items()}
    return value


def _to_torch(torch, value):
    if isinstance(value, dict):
        return {key: _to_torch(torch, item) for key, item in value.items()}
    # A copy, since PyTorch takes only what is writable and in order.
    return torch.from_numpy(np.array(value, order="C"))


def _refusal(path, error):
    asked = re.search(r"GLOBAL (\S+)", str(error))
    if asked:
        return PthError(
            f"{path} is refused, since reading it would call {asked[1]}: only "
            "tensors and plain data are read, and nothing was run"
        )
    reason = re.sub(r"\s+", " ", str(error)).partition(". ")[0]
    reason = reason[:200] or type(error).__name__
    return PthError(
        f"{path} is damaged, or no file of PyTorch's ({reason}): download it "
        "again"
    )
