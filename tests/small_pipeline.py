"""The whole pipeline on the smallest networks, in real processes.

`python -m tests.small_pipeline FLAGS` is `python -m pipeline.run FLAGS` that
also knows the preset `small`: digits of 12 px in colour.
"""

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from pipeline import run
from tests.tiny import smallest_config
from transgan_tf import presets
from transgan_tf.configs import EvaluationConfig

STEPS = 6
# Of a card: when it was written, and for which root.
_OF_ITS_TIME = ("created", "pipeline")


def small_preset():
    """Returns a record of the smallest networks, of the digits."""
    config = dataclasses.replace(
        smallest_config(steps=STEPS, checkpoint_every_steps=1),
        evaluation=EvaluationConfig(num_images=20, metrics="fid"),
    )
    return dataclasses.replace(presets.get_preset("mnist"), config=config)


def command(folder, features, *flags):
    """Returns the words that run the pipeline below a folder."""
    usual = ["--dataset=small", "--max_images=40", "--shards=2"]
    usual += [f"--pipeline_root={folder}/root"]
    usual += [f"--model_dir={folder}/models/digits"]
    usual += ["--direct_running_mode=in_memory", "--direct_num_workers=1"]
    usual += [f"--set=evaluation.features={features}"]
    return [sys.executable, "-m", "tests.small_pipeline", *usual, *flags]


def start(folder, features, *flags, **options):
    """Starts the pipeline in a session of its own; returns the process."""
    return subprocess.Popen(
        command(folder, features, *flags),
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        **options,
    )


def finish(folder, features, *flags):
    """Runs the pipeline to its end; returns what it printed."""
    process = start(folder, features, *flags)
    printed, _ = process.communicate()
    assert process.returncode == 0, printed
    return printed


def kill(process):
    """Kills a pipeline and all that it started, wherever they are."""
    for pid in _session(process.pid):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.communicate()


def _session(leader):
    """Yields the processes of a session, whose leader is still there."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # After the name, which may hold anything: state, parent, group.
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader:
            yield int(path.parent.name)


def content(version) -> dict:
    """Returns what must be the same of a pushed version however it was made.

    That is the card but for its time and its root, the numbers of all
    variables as they stand in the files, the answer of each signature, and
    the warm-up requests. The bytes of the SavedModel itself are not: Keras
    numbers the variables anew in each process.
    """
    import tensorflow as tf

    from serving.servable import Servable
    from serving.versions import CARD
    from serving.warmup import REQUESTS
    from serving.warmup import example_inputs

    version = Path(version)
    card = json.loads((version / CARD).read_text())
    width = card["config"]["generator"]["latent_dim"]
    reader = tf.train.load_checkpoint(str(version / "variables/variables"))
    arrays = map(reader.get_tensor, reader.get_variable_to_shape_map())
    servable = Servable(version)
    answers = {
        key: list(servable.run(servable.signatures[key], inputs).values())
        for key, inputs in example_inputs(width, 2).items()
    }
    servable.close()
    return {
        "card": {k: v for k, v in card.items() if k not in _OF_ITS_TIME},
        "variables": sorted(
            _digest(array) for array in arrays if hasattr(array, "tobytes")
        ),
        "answers": {k: _digest(v[0]) for k, v in answers.items()},
        "warm-up": _digest((version / REQUESTS).read_bytes()),
    }


def _digest(value):
    content = value if isinstance(value, bytes) else repr(value.tolist())
    content = content if isinstance(content, bytes) else content.encode()
    return hashlib.sha256(content).hexdigest()


def main():
    presets._PRESETS["small"] = small_preset()
    return run.main()


if __name__ == "__main__":
    sys.exit(main())
