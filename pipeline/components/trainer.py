"""Trainer: trains in a process of its own, and exports what it trained."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from pipeline.components.configuration import join_config
from pipeline.components.datasets import dataset_folder
from pipeline.components.names import SERVING
from pipeline.orchestration.component import Artifact
from pipeline.orchestration.component import ComponentError
from transgan_tf import cli
from transgan_tf.manifest import load_manifest
from transgan_tf.processes import TOLD_TO_STOP
from transgan_tf.processes import shell_status
from transgan_tf.processes import tied_to_this

# The model's name until the Pusher knows the folder that it goes to.
NAME = "transgan"

_CONFIG = "training.json"
# Of the end of standard error, where the sentence of a user's error stands.
_KEPT = 4096


def run(
    examples: Artifact,
    examples_blessing: Artifact,
    model_run: Path,
    model: Path,
    config: dict,
    settings: dict,
) -> dict:
    """Trains a run, or goes on with it, and exports its averaged generator.

    Args:
        examples: of ExampleGen.
        examples_blessing: of ExampleValidator, without which there is no
            training.
        model_run: folder of the output that is kept when training is killed.
        model: folder of the output.
        config, settings: parts of a `Config`, see `split_config`.

    Raises:
        ComponentError: training failed.
        SystemExit: after a signal, with its status.
    """
    dataset = dataset_folder(examples.path)
    run_dir = model_run / dataset.name
    config_file = model_run / _CONFIG
    config_file.write_text(join_config(config, settings).to_json())
    flags = {
        "dataset": dataset.name,
        "data_dir": dataset.parent,
        "run_dir": run_dir,
        "config_file": config_file,
    }
    status = train([f"--{name}={value}" for name, value in flags.items()])
    if status:
        raise SystemExit(status)
    return _export(run_dir, model / SERVING, load_manifest(dataset))


def train(flags: list[str]) -> int:
    """Trains in a process of its own; a signal is passed on to it.

    Once training has saved, the signal is this process's again.

    Returns:
        0, or 130 or 143 if training alone was told to stop.

    Raises:
        ComponentError: it failed.
    """
    with _held_signals() as pass_on_to:
        command = [sys.executable, "-m", "transgan_tf.train", *flags]
        process = subprocess.Popen(
            tied_to_this(command), stderr=subprocess.PIPE
        )
        pass_on_to(process)
        with process.stderr:
            told = _copy(process.stderr)
        status = process.wait()
    if shell_status(status) in (cli.DONE, *TOLD_TO_STOP):
        return shell_status(status)
    raise ComponentError(_why(status, told.decode(errors="replace")))


@contextlib.contextmanager
def _held_signals():
    """Passes signals on to a process, and takes them itself at the end.

    As an exception a signal could come between the start of a process and the
    knowledge of it.

    Yields:
        A function that is told the process.
    """
    early, came, processes = [], [], []

    def note(number, frame):
        came.append(number)
        for process in processes:
            process.send_signal(number)
        if not processes:
            early.append(number)

    def pass_on_to(process):
        processes.append(process)
        for number in early:
            process.send_signal(number)

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield pass_on_to
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came[:1]:
            signal.raise_signal(number)


def _copy(stream) -> bytes:
    """Copies to standard error as it comes; returns the end."""
    told = b""
    while chunk := os.read(stream.fileno(), _KEPT):
        os.write(2, chunk)
        told = (told + chunk)[-_KEPT:]
    return told


def _why(status, told):
    if status < 0:
        name = signal.Signals(-status).name
        return (
            f"training was ended by {name}, perhaps since memory ran out: the "
            "same command goes on from its last checkpoint"
        )
    _, found, sentence = told.rpartition("error: ")
    reason = sentence.strip() if found else f"status {status}, see the log"
    return f"training failed: {reason}"


def _export(run_dir, folder, manifest):
    """Writes the version that the Pusher copies.

    What differs between two runs of the same training is left out of its card,
    so that the same training gives the same files.
    """
    cli.import_tensorflow_quietly()
    from serving.card import DIGITS_LICENCE
    from serving.export import load_run
    from serving.export import write_version

    licence = DIGITS_LICENCE if manifest.source.kind == "digits" else None
    generator, card = load_run(run_dir, "latest", NAME, licence)
    del card["created"]
    card["run"] = run_dir.name
    card["evaluation"] = None
    folder.mkdir()
    write_version(folder, generator, card)
    print(json.dumps({key: card[key] for key in ("step", "weights_sha256")}))
    step = {"step": card["step"]}
    weights = {"weights_sha256": card["weights_sha256"]}
    return {"model_run": step, "model": step | weights}
