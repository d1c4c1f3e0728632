"""The pipeline for Kubeflow: compiled, and executed without containers."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tyro
import yaml

from pipeline import kubeflow
from pipeline.components.graph import make_components
from pipeline.orchestration.component import Latest
from pipeline.orchestration.files import fingerprint
from pipeline.orchestration.files import record
from tests.test_commands import SMALL_FLAGS
from tests.test_features import Network
from tests.test_features import save
from transgan_tf import train
from transgan_tf.workers import read_cluster

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "kubeflow.md").read_text()
FLAGS = ["--dataset=mnist", "--max_images=40", "--steps=2", *SMALL_FLAGS]
FLAGS += ["--set=evaluation.num_images=8", "--set=evaluation.metrics=fid"]


def compiled(folder, *flags):
    """Returns the two documents of the YAML that the command writes."""
    file = folder / "pipeline.yaml"
    assert kubeflow.main([*FLAGS, f"--output={file}", *flags]) == 0
    return list(yaml.safe_load_all(file.read_text()))


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    return compiled(
        tmp_path_factory.mktemp("compiled"),
        "--image=registry/transgan:7",
        "--volume=claim:/volume",
        "--model_dir=/volume/models/transgan",
        "--baseline_run=gs://bucket/run",
        "--gpus=2",
    )


def components():
    flags = kubeflow.Arguments("mnist", model_dir=Path("/m"))
    return make_components(flags, [])


def dashed(name):
    return re.sub("(?<=.)([A-Z])", r"-\1", name).lower()


def test_components_inputs_and_outputs_are_the_pipelines(documents):
    spec = documents[0]
    for component in components():
        made = spec["components"][f"comp-{dashed(component.name)}"]
        outputs = made["outputDefinitions"]["artifacts"]
        assert set(outputs) == set(component.outputs)
        inputs = made["inputDefinitions"].get("artifacts", {})
        optional = {k for k, v in inputs.items() if v.get("isOptional")}
        assert set(inputs) == set(component.inputs)
        assert optional == {
            key
            for key, source in component.inputs.items()
            if isinstance(source, Latest)
        }
    evaluator = spec["components"]["comp-evaluator"]["outputDefinitions"]
    evaluation = evaluator["artifacts"]["evaluation"]["artifactType"]
    assert evaluation["schemaTitle"] == "system.Metrics"


def test_tasks_are_wired_as_channels_say(documents):
    tasks = documents[0]["root"]["dag"]["tasks"]
    assert len(tasks) == len(components()) + 1
    for component in components():
        task = tasks[dashed(component.name)]
        given = task["inputs"].get("artifacts", {})
        for key, source in component.inputs.items():
            if isinstance(source, Latest):
                continue
            made = given[key]["taskOutputArtifact"]
            assert made["producerTask"] == dashed(source.component)
            assert made["outputArtifactKey"] == source.output
        assert task["taskInfo"]["name"] == component.name
        values = task["inputs"]["parameters"]
        text = values["arguments"]["runtimeValue"]["constant"]
        expected = {**component.parameters, **component.settings}
        assert set(json.loads(text)) == set(expected)
        assert re.fullmatch(
            "[0-9a-f]{64}", values["code"]["runtimeValue"]["constant"]
        )


def test_steps_run_in_the_image_and_install_nothing(documents):
    executors = documents[0]["deploymentSpec"]["executors"]
    executors.pop("exec-importer")
    assert len(executors) == len(components())
    for executor in executors.values():
        container = executor["container"]
        assert container["image"] == "registry/transgan:7"
        assert "pip install" not in " ".join(container["command"])
    limited = {n for n, e in executors.items() if "resources" in e["container"]}
    assert limited == {"exec-trainer", "exec-evaluator"}
    accelerator = executors["exec-trainer"]["container"]["resources"]
    assert accelerator["accelerator"]["resourceType"] == "nvidia.com/gpu"
    assert accelerator["accelerator"]["resourceCount"] == "2"


def test_an_artifact_of_an_earlier_run_is_imported(documents):
    spec = documents[0]
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    assert parameters["baseline_run"]["defaultValue"] == "gs://bucket/run"
    tasks = spec["root"]["dag"]["tasks"]
    given = tasks["evaluator"]["inputs"]["artifacts"]["baseline_run"]
    assert given["taskOutputArtifact"]["producerTask"] == "importer"
    validator = tasks["example-validator"]["inputs"]["artifacts"]
    assert "previous_statistics" not in validator


def test_the_volume_is_every_steps_and_training_is_tried_again(documents):
    spec, platforms = documents
    executors = platforms["platforms"]["kubernetes"]["deploymentSpec"]
    mounts = {
        name: made["pvcMount"] for name, made in executors["executors"].items()
    }
    assert set(mounts) == {f"exec-{dashed(c.name)}" for c in components()}
    for (mount,) in mounts.values():
        assert mount["mountPath"] == "/volume"
        assert mount["constant"] == "claim"
    tasks = spec["root"]["dag"]["tasks"]
    assert [n for n, task in tasks.items() if "retryPolicy" in task] == [
        "trainer"
    ]
    values = tasks["trainer"]["inputs"]["parameters"]
    folder = values["work_dir"]["runtimeValue"]["constant"]
    assert Path(folder).is_relative_to("/volume")


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--model_dir=models"], "--model_dir must be an absolute path"),
        (["--model_dir=/m", "--volume=claim"], "--volume must be a claim"),
        (["--model_dir=/m", "--gpus=-1"], "--gpus must be at least 0"),
    ],
)
def test_mistakes_are_told(flags, sentence, capsys, tmp_path):
    file = tmp_path / "pipeline.yaml"
    assert kubeflow.main([*FLAGS, f"--output={file}", *flags]) == 1
    assert sentence in capsys.readouterr().err
    assert not file.exists()


def test_an_unknown_flag_is_bad_usage(capsys, tmp_path):
    file = tmp_path / "pipeline.yaml"
    flags = ["--model_dir=/m", f"--output={file}", "--imag=x"]
    assert kubeflow.main([*FLAGS, *flags]) == 2
    assert "--image" in capsys.readouterr().err
    assert not file.exists()


# === What the page says ===


def examples():
    texts = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    return [yaml.safe_load(text) for text in texts]


def read_training(words):
    flags = [word for word in words if word.startswith("--")]
    return tyro.cli(train.Arguments, args=flags, use_underscores=True)


def test_the_pages_jobs_are_of_a_chief_and_workers_alike():
    tfjob, vertex = examples()
    assert (tfjob["apiVersion"], tfjob["kind"]) == ("kubeflow.org/v1", "TFJob")
    specs = tfjob["spec"]["tfReplicaSpecs"]
    assert list(specs) == ["Chief", "Worker"]
    assert specs["Chief"]["replicas"] == 1
    assert specs["Chief"]["template"] == specs["Worker"]["template"]
    pod = specs["Chief"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["name"] == "tensorflow"
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    chief, workers = vertex["workerPoolSpecs"]
    assert chief["replicaCount"] == 1
    assert chief["containerSpec"] == workers["containerSpec"]
    for words in (container["args"], chief["containerSpec"]["args"]):
        arguments = read_training(words)
        assert arguments.strategy == "multi_worker"
        assert Path(arguments.data_dir).is_absolute()
        assert Path(arguments.run_dir).is_absolute()


def test_both_systems_variables_are_understood():
    tfjob, _ = examples()
    name = tfjob["metadata"]["name"]
    count = tfjob["spec"]["tfReplicaSpecs"]["Worker"]["replicas"]

    def addresses(kind, number):
        return [f"{name}-{kind}-{n}.default.svc:2222" for n in range(number)]

    variable = {
        "cluster": {
            "chief": addresses("chief", 1),
            "worker": addresses("worker", count),
        },
        "task": {"type": "worker", "index": 2},
        "environment": "cloud",
    }
    cluster = read_cluster(json.dumps(variable))
    assert len(cluster.addresses) == 1 + count
    assert cluster.index == 3


def test_the_pages_command_compiles(tmp_path):
    (command,) = re.findall(
        r"^python -m pipeline.kubeflow --dataset=cats .*?yaml$",
        re.sub(r"\\\n\s*", "", PAGE),
        re.MULTILINE,
    )
    words = [w for w in command.split()[3:] if not w.startswith("--output")]
    file = tmp_path / "pipeline.yaml"
    assert kubeflow.main([*words, f"--output={file}"]) == 0
    assert file.exists()


def test_without_a_volume_there_is_one_document(tmp_path):
    (spec,) = compiled(tmp_path, "--model_dir=/gcs/bucket/models")
    assert "importer" not in spec["root"]["dag"]["tasks"]


# === Executed ===

# In a process of its own, since kfp's settings of a local run are global.
LOCAL = """
import sys
import tyro
from kfp import local
from pipeline import kubeflow
from pipeline.components.graph import make_components
from pipeline.kubeflow_graph import make_pipeline

root, *flags = sys.argv[1:]
arguments = tyro.cli(kubeflow.Arguments, args=flags, use_underscores=True)
local.init(local.SubprocessRunner(use_venv=False), pipeline_root=root)
make_pipeline(make_components(arguments, []), arguments)()
"""


def execute(folder, *flags):
    """Runs the pipeline by kfp on this machine.

    Returns:
        Its status, and all that it printed.
    """
    # Nothing is mounted, but the folder is where the volume would be.
    places = [f"--volume=claim:{folder}"]
    places += [f"--model_dir={folder}/models/transgan"]
    words = [f"{folder}/root", *FLAGS, *places, *flags]
    done = subprocess.run(
        [sys.executable, "-c", LOCAL, *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout


@pytest.mark.slow
def test_it_runs_on_the_digits_from_images_to_a_version(tmp_path):
    features = save(tmp_path / "net", Network())
    network = f"--set=evaluation.features={features}"
    status, told = execute(tmp_path, network)
    assert status == 0, told[-6000:]
    card = json.loads(
        (tmp_path / "models/transgan/1/model_card.json").read_text()
    )
    assert card["step"] == 2
    assert card["pipeline"]["execution"] == 1
    (run,) = (tmp_path / "root").iterdir()
    assert run.name in card["pipeline"]["pipeline_root"]
    tasks = {path.name for path in run.iterdir()}
    assert tasks == {dashed(c.name) for c in components()}
    answer = json.loads((run / "trainer/executor_output.json").read_text())
    (model,) = answer["artifacts"]["model"]["artifacts"]
    found = fingerprint(record(run / "trainer/model"))
    assert model["metadata"]["fingerprint"] == found
    assert card["pipeline"]["fingerprint"] == found
    kept = tmp_path / ".transgan-tf"
    assert kept.is_dir() and not list(kept.rglob("Trainer"))

    # A second run, judged against the first.
    uris = [
        f"--baseline_run={run}/trainer/model_run",
        f"--previous_statistics={run}/statistics-gen/statistics",
    ]
    seed = "--set=training.seed=1"
    status, told = execute(tmp_path, network, *uris, seed)
    assert status == 0, told[-6000:]
    (other,) = set((tmp_path / "root").iterdir()) - {run}
    scores = json.loads(
        (other / "evaluator/evaluation/metrics.json").read_text()
    )
    assert scores["baseline"] is not None
    drift = json.loads(
        (other / "example-validator/anomalies/anomalies.json").read_text()
    )
    assert drift["drift"]


@pytest.mark.slow
def test_a_users_error_is_one_sentence_and_fails_the_run(tmp_path):
    flags = ["--dataset=cats", "--preset=mnist", f"--source={tmp_path}/none"]
    status, told = execute(tmp_path, *flags)
    assert status != 0
    assert "error: there is no folder" in told
    assert not (tmp_path / "models").exists()
