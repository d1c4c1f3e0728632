"""What the command lines share: quiet start, one-sentence errors, statuses.

Imports no TensorFlow, so that `--help` answers at once.
"""

import logging
import os
import platform
import re
import sys
import tempfile
from collections.abc import Callable

import tyro
from tqdm import tqdm

from transgan_tf.checked import UserError
from transgan_tf.estimate import SAVERS

DONE, FAILED, INTERRUPTED = 0, 1, 130

# What may stand before the reason in its line: which function failed, which of
# several errors it is, in which dataset, and Python's class of error.
_BEFORE_REASON = re.compile(
    r"\s*(?:.*\}\} |\(\d+\) \w+: +)?(?:.* Iterator::\S+: )?"
    r"(?:[\w.]*Error: )?(.*)"
)
_OUT_OF_MEMORY = re.compile("out of memory|OOM when", re.IGNORECASE)


def run(
    arguments_type: type,
    act: Callable,
    command: str,
    argv=None,
    needs_tensorflow=True,
) -> int:
    """Parses a command line and acts on it.

    Args:
        arguments_type: dataclass of the flags; its docstring is the help text.
        act: function of the parsed arguments that returns an exit status.
        command: how the command is called, for its help.
        argv: the words after it; those of the process by default.
        needs_tensorflow: whether to import it first, without its notes.

    Returns:
        The exit status, see `answer`.

    Raises:
        SystemExit: with status 2 for a wrong command line.
    """
    arguments = tyro.cli(
        arguments_type,
        args=split_flags(argv),
        prog=command,
        use_underscores=True,
    )

    def start():
        if needs_tensorflow:
            import_tensorflow_quietly()
        return act(arguments)

    return answer(start)


def answer(act: Callable[[], int]) -> int:
    """Calls a function and turns a user's error into one sentence.

    Returns:
        The exit status: the function's, 1 after the sentence, or 130 after
        Ctrl-C.
    """
    try:
        return act()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        sentence = explain(error)
        if sentence is None:
            raise
        print(f"error: {sentence}", file=sys.stderr)
        return FAILED


def show_log() -> None:
    """Sends the library's log lines to standard error."""
    log = logging.getLogger("transgan_tf")
    if not log.handlers:
        log.addHandler(logging.StreamHandler())
    log.setLevel(logging.INFO)


def progress_bar(total: int, **options) -> tqdm:
    """Returns a bar of images on standard error; `options` are tqdm's."""
    return tqdm(
        total=total,
        unit="img",
        unit_scale=True,
        # In a log file a line now and then is enough.
        mininterval=0.5 if sys.stderr.isatty() else 15.0,
        dynamic_ncols=True,
        **options,
    )


def split_flags(argv=None) -> list[str]:
    """Turns `--flag=value` into two words.

    For a flag that it does not know, tyro suggests the nearest only so.

    Args:
        argv: words of a command line; those of the process by default.
    """
    words = sys.argv[1:] if argv is None else argv
    split = []
    for word in words:
        flag, equals, value = word.partition("=")
        if flag.startswith("--") and equals and not value.startswith("-"):
            split += [flag, value]
        else:
            split.append(word)
    return split


def import_tensorflow_quietly() -> None:
    """Imports TensorFlow: no start-up notes, oneDNN on, TF32 off.

    C++ writes them before any log level holds, so standard error is turned
    away meanwhile. If the import fails, they are shown.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if platform.machine() in ("x86_64", "AMD64"):
        # TensorFlow leaves it off where the processor lacks AVX-512's VNNI,
        # and multiplies batches of matrices six times as slowly.
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    # Whatever the user's other projects run Keras on.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    saved = os.dup(2)
    with tempfile.TemporaryFile() as notes:
        os.dup2(notes.fileno(), 2)
        try:
            import tensorflow as tf
        except BaseException:
            notes.seek(0)
            os.write(saved, notes.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)
    # Else GPUs multiply float32 matrices in TF32, of 10 bits, and outputs miss
    # the authors' by 3e-4 to 4e-3 of the largest instead of below 1e-4.
    tf.config.experimental.enable_tensor_float_32_execution(False)


def reason(message: str) -> str:
    """Returns the one line of a TensorFlow error's message that says why.

    Of a graph's error it stands between the places in the code and the names
    of the operations that failed (TensorFlow 2.21); else it comes first.
    """
    before, operations, _ = message.partition("\n\t [[")
    lines = before.strip().splitlines() or [""]
    line = lines[-1 if operations else 0]
    # XLA lists its buffers after it.
    memory = [line for line in lines if _OUT_OF_MEMORY.search(line)]
    return _BEFORE_REASON.match((memory or [line])[0])[1]


def explain(error: Exception) -> str | None:
    """Returns what to tell a user, or None for an error of our own."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.strerror}: {error.filename}"
    if isinstance(error, (UserError, OSError)):
        return str(error)
    if isinstance(error, MemoryError):
        return f"memory ran out ({error})"
    if "tensorflow" not in sys.modules:
        return None
    from tensorflow import errors

    if isinstance(error, errors.ResourceExhaustedError):
        return (
            f"memory or disk ran out ({reason(error.message)}): "
            f"training takes less memory with {SAVERS}"
        )
    if isinstance(error, errors.PermissionDeniedError):
        return error.message
    return None
