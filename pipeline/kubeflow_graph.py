"""The pipeline as kfp knows it: its components, and what goes between them.

Each of ours becomes a function of one call, with the signature that kfp reads
types from. In the image it calls `pipeline.kubeflow_steps.run`.
"""

import inspect
import json
import linecache
import re
from collections.abc import Sequence

from kfp import dsl
from kfp import kubernetes

from pipeline.orchestration import code
from pipeline.orchestration.component import Component
from pipeline.orchestration.component import Latest

# How often a step that can go on is started again.
RETRIES = 3
# kfp's own types, which Kubeflow's pages show; others are plain artifacts.
_TYPES = {
    "Examples": "Dataset",
    "Model": "Model",
    "ModelEvaluation": "Metrics",
    "PushedModel": "Model",
}
# What a step is told in the pipeline's file: parameters and settings, the
# version of its code, which makes Kubeflow's cache see other code, and where it
# keeps what it needs to go on.
_TEXTS = ("arguments", "code", "work_dir")
_ON_DEVICES = ("Trainer", "Evaluator")


def make_pipeline(components: Sequence[Component], options):
    """Returns kfp's pipeline of the components.

    Args:
        components: in the order of execution.
        options: `pipeline.kubeflow.Arguments`.
    """
    graph = _Graph(components, options)

    def build(*channels):
        graph.build(dict(zip(graph.uris, channels, strict=True)))

    # From it kfp reads the pipeline's parameters: the artifacts of earlier runs
    # that are given. The others are missing, as in a first run.
    build.__signature__ = inspect.Signature(
        inspect.Parameter(
            key, inspect.Parameter.KEYWORD_ONLY, default=uri, annotation=str
        )
        for key, uri in graph.uris.items()
    )
    name = re.sub("[^a-z0-9]+", "-", f"transgan-{options.dataset.lower()}")
    return dsl.pipeline(build, name=name.strip("-"))


class _Graph:
    """Makes the tasks of a pipeline while kfp listens.

    Attributes:
        uris: where artifacts of earlier runs are, by the input's keyword.
    """

    def __init__(self, components, options):
        self._options = options
        self._types = {
            (component.name, output): _TYPES.get(kind, "Artifact")
            for component in components
            for output, kind in component.outputs.items()
        }
        self._steps = [
            (component, _make_step(component, self._types, options.image))
            for component in components
        ]
        self.uris = {
            key: getattr(options, key)
            for component in components
            for key, source in component.inputs.items()
            if isinstance(source, Latest) and getattr(options, key)
        }

    def build(self, channels):
        """Makes a task of each component; `channels` are those of `uris`."""
        tasks = {}
        for component, step in self._steps:
            given = self._given(component, channels, tasks)
            values = {**component.parameters, **component.settings}
            task = step(
                **given,
                arguments=json.dumps(values),
                code=code.fingerprint(component.function),
                work_dir=self._options.work_dir(),
            )
            self._equip(task, component)
            tasks[component.name] = task

    def _given(self, component, channels, tasks):
        given = {}
        for key, source in component.inputs.items():
            if not isinstance(source, Latest):
                given[key] = tasks[source.component].outputs[source.output]
            elif key in channels:
                type_ = _type_of(source, self._types)
                task = dsl.importer(channels[key], getattr(dsl, type_))
                given[key] = task.set_display_name(key).output
        return given

    def _equip(self, task, component):
        """Gives a task the volume, the tries and the devices that it needs."""
        task.set_display_name(component.name)
        if self._options.volume:
            claim, path = self._options.claim()
            kubernetes.mount_pvc(task, pvc_name=claim, mount_path=path)
            if component.resumable:
                task.set_retry(num_retries=RETRIES)
        if self._options.gpus and component.name in _ON_DEVICES:
            task.set_accelerator_type("nvidia.com/gpu")
            task.set_accelerator_limit(self._options.gpus)


def _make_step(component, types, image):
    """Returns a component of kfp that calls ours."""
    # The name of the module, such as `example_gen`.
    name = component.function.partition(":")[0].rpartition(".")[2]
    source = _source(name, component, types)
    # kfp keeps the function's source, which it asks for as of any file's.
    file = f"<component {name}>"
    linecache.cache[file] = (len(source), None, source.splitlines(True), file)
    space = dict(vars(dsl))
    exec(compile(source, file, "exec"), space)
    make = dsl.component(base_image=image, install_kfp_package=False)
    return make(space[name])


def _source(name, component, types):
    """Returns the source of a function with the signature that kfp wants."""
    required = [f"{key}: str" for key in _TEXTS]
    required += [
        f"{key}: Output[{types[component.name, key]}]"
        for key in component.outputs
    ]
    optional = []
    for key, source in component.inputs.items():
        declared = f"{key}: Input[{_type_of(source, types)}]"
        if isinstance(source, Latest):
            optional.append(f"{declared} = None")
        else:
            required.append(declared)
    return (
        f"def {name}({', '.join(required + optional)}):\n"
        "    from pipeline.kubeflow_steps import run\n"
        f"    run({component.name!r}, {component.function!r}, "
        f"{_dictionary(component.inputs)}, {_dictionary(component.outputs)}, "
        f"{component.resumable!r}, arguments, work_dir)\n"
    )


def _dictionary(keys):
    """Returns the source of a dictionary of variables by their names."""
    return "{" + ", ".join(f"{key!r}: {key}" for key in keys) + "}"


def _type_of(source, types):
    channel = source.channel if isinstance(source, Latest) else source
    return types[channel.component, channel.output]
