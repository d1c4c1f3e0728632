"""The process a component runs in: `python -m pipeline.orchestration.execute`.

The launcher gives it a folder with `executor_input.json`, which says what to
call, and the end of a pipe. It leaves `executor_output.json` there, which says
what came of it, once all that the component made is on the disk.
"""

import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

from pipeline.orchestration import files
from pipeline.orchestration.component import Artifact
from pipeline.orchestration.component import Component

INPUT, OUTPUT = "executor_input.json", "executor_output.json"
# For training to save, after the launcher is gone.
_GRACE_SECONDS = 120.0
_DONE, _FAILED, _INTERRUPTED = 0, 1, 130


def end_with(launcher: int, grace: float = _GRACE_SECONDS) -> None:
    """Ends this process, and those that it started, with the launcher.

    First by SIGTERM, which lets it save, and after `grace` seconds at once.

    Args:
        launcher: end of a pipe whose other end only the launcher has: however
            it dies, the pipe is closed.
    """

    def watch():
        os.read(launcher, 1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def execute(request: dict) -> dict:
    """Calls the component's function; returns what the launcher is told."""
    component = Component(request["component"], request["function"], {}, {})
    outputs = {name: Path(made["path"]) for name, made in _outputs(request)}
    function = component.load()
    properties = function(
        **{key: _artifact(made) for key, made in request["inputs"].items()},
        **outputs,
        **request["parameters"],
        **request["settings"],
    )
    properties = properties or {}
    unknown = sorted(properties.keys() - outputs.keys())
    if unknown:
        raise KeyError(f"{component.name} has no output {unknown[0]}")
    published = {}
    for name, made in _outputs(request):
        found = files.record(made["path"])
        published[name] = {
            "type": made["type"],
            "properties": dict(properties.get(name, {})),
            "fingerprint": files.fingerprint(found),
            "files": found,
        }
    return {"outputs": published}


def _outputs(request):
    return request["outputs"].items()


def _artifact(made):
    if made is None:
        return None
    return Artifact(**made | {"path": Path(made["path"])})


def run(folder: Path) -> int:
    """Does what a folder's request says; returns the exit status."""
    try:
        answer = execute(files.read_json(folder / INPUT))
    except Exception as error:
        # Only now: most processes start faster without it.
        from transgan_tf import cli

        sentence = cli.explain(error)
        if sentence is None:
            traceback.print_exc()
        else:
            print(f"error: {sentence}", file=sys.stderr)
        last = f"{type(error).__name__}: {error}".splitlines()[0]
        answer = {"error": sentence or last, "expected": sentence is not None}
    files.write_json(folder / OUTPUT, answer)
    return _FAILED if "error" in answer else _DONE


def _terminate(number, frame):
    # So that `finally` clauses and context managers do their work.
    sys.exit(128 + number)


def main(argv=None) -> int:
    folder, launcher = sys.argv[1:] if argv is None else argv
    signal.signal(signal.SIGTERM, _terminate)
    end_with(int(launcher))
    try:
        return run(Path(folder))
    except KeyboardInterrupt:
        return _INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
