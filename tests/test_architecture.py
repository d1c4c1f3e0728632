"""Holds who may import whom, between the rooms and inside the library."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("transgan_tf", "pipeline", "serving")

# The library's floors, from the bottom. A module imports from its own floor
# and from those below. A package stands for all its modules, unless one of
# them has a place of its own. A new module needs a place here.
FLOORS = (
    (
        "authors",
        "caching",
        "checked",
        "configs",
        "images",
        "loss_scale",
        "manifest",
        "network_configs",
        "presets",
        "processes",
        "pth",
        "randomness",
        "records",
        "remat",
        "version",
    ),
    ("estimate", "flops", "resnet_estimate"),
    ("ablation",),
    ("cli", "memory", "pictures", "sampling"),
    ("layers", "metrics.tfgan"),
    ("augment", "discriminator", "ema", "generator", "losses", "resnet"),
    ("networks", "optimizers", "splitting"),
    ("updates",),
    ("gan",),
    ("stores",),
    ("checkpoints", "data", "metrics", "runs", "stream", "timing"),
    ("callbacks", "conversion", "evaluation", "workers"),
    ("evaluating",),
    ("fitting",),
    ("training",),
    (
        "ablate",
        "benchmark",
        "benchmark_attention",
        "benchmark_checkpoints",
        "benchmark_growth",
        "benchmark_layout",
        "benchmark_memory",
        "benchmark_peers",
        "benchmark_reading",
        "benchmark_replicas",
        "convert",
        "curves",
        "evaluate",
        "peers",
        "sample",
        "train",
    ),
)
PLACES = {name: n for n, names in enumerate(FLOORS) for name in names}

# What pipeline may know of the library.
SHARED = (
    "checked",
    "cli",
    "configs",
    "images",
    "manifest",
    "network_configs",
    "presets",
    "records",
    "version",
)

# The Serving messages import TensorFlow.
TENSORFLOW = ("keras", "tensorflow", "tensorflow_serving", "tf_keras")

# What leads from images to a served model may import from all rooms: the
# components' bodies, and those who put them together.
RUNNERS = ("pipeline.components", "pipeline.kubeflow", "pipeline.run")

# What each part must not import. What runs components knows none of them.
FORBIDDEN = {
    "transgan_tf": ("apache_beam", "pipeline", "serving", "tensorflow_serving"),
    "pipeline": ("serving",),
    "pipeline.orchestration": RUNNERS,
    "serving": ("pipeline",),
    "serving.client": TENSORFLOW,
    "serving.messages": TENSORFLOW,
}

# Modules that must load without TensorFlow, and what to run in each.
LIGHT = {
    "transgan_tf": "dir(transgan_tf)",
    "transgan_tf.configs": "",
    "transgan_tf.conversion": "",
    "transgan_tf.images": "transgan_tf.images.embedded_digits()",
    "transgan_tf.manifest": "",
    "transgan_tf.network_configs": "",
    "transgan_tf.pictures": "",
    "transgan_tf.presets": "",
    "transgan_tf.records": (
        "transgan_tf.records.encode("
        "b'\\xff\\xd8\\xff', format='jpeg', height=1, width=1)"
    ),
    "pipeline.report": "",
    "pipeline.run": (
        "from pipeline.components.graph import make_components\n"
        "make_components(pipeline.run.Arguments('mnist'), [])"
    ),
    "pipeline.lineage": "",
    "pipeline.orchestration.execute": "",
    "transgan_tf.runs": "",
    "serving.client": (
        "serving.client.Client('grpc://127.0.0.1:9').close()\n"
        "serving.client.Client('http://127.0.0.1:9').close()"
    ),
    "serving.client.__main__": "",
    "serving.messages": "",
    "serving.versions": "",
}


def imports(module, source):
    """Yields the dotted names that a module's source imports, at any depth.

    `from a import b` gives `a.b`, which may be a module or a name in one.
    """
    package = module.split(".")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # One dot is the package that holds the module.
            base = package[: -node.level] if node.level else []
            base += [node.module] if node.module else []
            yield from (".".join([*base, alias.name]) for alias in node.names)
        elif isinstance(node, ast.Call) and is_importing(node):
            yield node.args[0].value


def is_importing(call):
    """Tells whether a call is `import_module("...")` or `__import__("...")`."""
    function = getattr(call.func, "attr", getattr(call.func, "id", None))
    return (
        function in ("import_module", "__import__")
        and bool(call.args)
        and isinstance(call.args[0], ast.Constant)
    )


def is_within(name, names):
    return any(name == n or name.startswith(f"{n}.") for n in names)


def floor(name):
    """Returns a library module's floor, or `None` if it has no place."""
    parts = name.split(".")[1:]
    for length in range(len(parts), 0, -1):
        place = PLACES.get(".".join(parts[:length]))
        if place is not None:
            return place
    return None


def refusal(module, name):
    """Returns why `module` may not import `name`, or `None` if it may."""
    for part, names in FORBIDDEN.items():
        if is_within(module, [part]) and is_within(name, names):
            return f"{part} knows none of {', '.join(names)}"
    if is_within(name, ["transgan_tf"]):
        if is_within(module, ["pipeline"]):
            shared = [f"transgan_tf.{part}" for part in SHARED]
            if not is_within(name, shared):
                return f"pipeline shares only {', '.join(SHARED)}"
        if is_within(module, ["transgan_tf"]):
            return refusal_inside(module, name)
    return None


def refusal_inside(module, name):
    """The same for two modules of the library."""
    if module == "transgan_tf.__init__":
        return None
    if floor(module) is None:
        return f"{module} has no place in FLOORS"
    if floor(name) is None:
        return "import from the module that defines it, with a place in FLOORS"
    if floor(module) < floor(name):
        return "inside the library arrows point down"
    return None


def violations(module, source):
    """Returns one sentence for each import that breaks a rule."""
    if is_within(module, RUNNERS):
        return []
    return [
        f"{module} imports {name}: {reason}"
        for name in imports(module, source)
        if (reason := refusal(module, name))
    ]


def find_sources():
    """Returns `{module: path}` of every file in the three rooms.

    A package's own file is `package.__init__`, so that one dot in it means
    what it means in the package's other files.
    """
    paths = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for path in sorted(paths)
    }


SOURCES = find_sources()


def test_every_room_is_read():
    packages = {f"{room}.__init__" for room in ROOMS}
    assert {*packages, "transgan_tf.records"} <= set(SOURCES)


@pytest.mark.parametrize("module", SOURCES)
def test_imports_keep_the_direction(module):
    assert violations(module, SOURCES[module].read_text()) == []


@pytest.mark.parametrize("module", SOURCES)
def test_every_library_module_has_a_place(module):
    if module.startswith("transgan_tf.") and module != "transgan_tf.__init__":
        assert floor(module) is not None, f"give {module} a place in FLOORS"


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("transgan_tf.data", "import apache_beam as beam"),
        ("transgan_tf.__init__", "from pipeline import preprocess"),
        ("transgan_tf.sample", "def f():\n    import serving.export"),
        ("transgan_tf.gan", "importlib.import_module('pipeline.verify')"),
        ("transgan_tf.losses", "from transgan_tf.gan import TransGAN"),
        ("transgan_tf.losses", "from transgan_tf.metrics import fid"),
        ("transgan_tf.losses", "from transgan_tf import Generator"),
        ("transgan_tf.layers.block", "from transgan_tf import generator"),
        ("transgan_tf.layers.block", "from .. import gan"),
        ("transgan_tf.layers.__init__", "from ..generator import Generator"),
        ("transgan_tf.gan", "import transgan_tf"),
        ("transgan_tf.gan", "import transgan_tf.callbacks"),
        ("transgan_tf.callbacks", "from transgan_tf.train import main"),
        ("transgan_tf.configs", "from transgan_tf.layers import block"),
        ("transgan_tf.homeless", "from transgan_tf import configs"),
        ("pipeline.preprocess", "from transgan_tf.data import load"),
        ("pipeline.preprocess", "from transgan_tf import Generator"),
        ("pipeline.verify", "from serving import export"),
        ("pipeline.orchestration.runner", "from serving import versions"),
        ("pipeline.orchestration.runner", "from transgan_tf import training"),
        (
            "pipeline.orchestration.plan",
            "from pipeline.components import graph",
        ),
        ("pipeline.orchestration.execute", "import pipeline.run"),
        ("pipeline.lineage", "from serving.versions import CARD"),
        ("pipeline.componentsx", "from serving import export"),
        ("serving.push", "import pipeline.run"),
        ("serving.client", "import tensorflow as tf"),
        ("serving.client", "from tensorflow_serving.apis import predict_pb2"),
    ],
)
def test_the_rule_catches(module, source):
    assert len(violations(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("transgan_tf.train", "from transgan_tf.callbacks import Samples"),
        ("transgan_tf.losses", "from transgan_tf.metrics import tfgan"),
        ("transgan_tf.metrics.fid", "from transgan_tf.metrics import tfgan"),
        ("transgan_tf.layers.block", "from .norm import TokenScale"),
        ("transgan_tf.layers.__init__", "from .block import Block"),
        ("transgan_tf.presets", "from transgan_tf.configs import Config"),
        ("transgan_tf.gan", "import pipelines, tensorflow"),
        ("pipeline.preprocess", "import apache_beam"),
        ("pipeline.preprocess", "from transgan_tf.records import encode"),
        ("pipeline.verify", "from transgan_tf import configs, records"),
        ("pipeline.run", "from serving import export"),
        ("pipeline.components.pusher", "from serving import versions"),
        ("pipeline.components.trainer", "from transgan_tf import training"),
        ("pipeline.kubeflow", "from pipeline.components import graph"),
        ("pipeline.orchestration.plan", "from transgan_tf import checked"),
        ("serving.export", "from transgan_tf import load_generator"),
    ],
)
def test_the_rule_allows(module, source):
    assert violations(module, source) == []


def loaded_after(code):
    """Returns the names in `sys.modules` after `code` in a new interpreter."""
    code = f"{code}\nimport json, sys\nprint(json.dumps(list(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return set(json.loads(result.stdout.splitlines()[-1]))


def is_present(module):
    return bool({module, f"{module}.__init__"} & set(SOURCES))


@pytest.mark.parametrize("module", list(filter(is_present, LIGHT)))
def test_light_modules_load_without_tensorflow(module):
    loaded = loaded_after(f"import {module}\n{LIGHT[module]}")
    heavy = {*TENSORFLOW, "apache_beam", "pipeline", "serving"}
    heavy.discard(module.partition(".")[0])
    assert module in loaded
    assert not heavy & loaded


def test_loaded_after_sees_a_heavy_module():
    assert "serving" in loaded_after("import serving")


def test_public_names_load_on_first_use():
    import transgan_tf

    assert dir(transgan_tf) == [
        "DiffAugment",
        "Discriminator",
        "Generator",
        "TransGAN",
        "__version__",
        "get_preset",
        "load_generator",
    ]
    with pytest.raises(AttributeError, match="no attribute 'Genrator'"):
        _ = transgan_tf.Genrator
