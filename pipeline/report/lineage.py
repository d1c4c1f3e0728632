"""The lineage of a run: executions, and the artifacts that lead between them.

The diagram is a column of executions. Each artifact that another one reads
leaves its maker on the right, runs down a lane of its own, and enters its
readers.
"""

from pipeline.report import formats
from pipeline.report.gather import Step
from pipeline.report.gather import Story

BOX, TITLE, ROW, GAP, LANE, EDGE = 316, 26, 17, 14, 13, 8


def lineage(story: Story) -> list[dict]:
    """Returns an entry for each execution of the run."""
    return [_entry(step, story) for step in story.steps.values()]


def _entry(step: Step, story: Story):
    execution = step.execution
    return {
        "id": execution.id,
        "component": execution.component,
        "status": "cached" if step.cached else execution.status,
        "facts": {
            "Started": formats.moment(execution.started),
            "Finished": formats.moment(execution.finished),
            "Host": execution.host,
            "Code": execution.code,
            "Cache key": execution.cache_key,
        },
        "parameters": formats.flatten(dict(execution.parameters)),
        "settings": formats.flatten(dict(execution.settings)),
        "inputs": _artifacts(step.inputs, story.earlier),
        "outputs": _artifacts(step.outputs, story.earlier),
    }


def _artifacts(artifacts, earlier):
    return [
        {
            "key": key,
            "uri": artifact.uri,
            "type": artifact.type,
            "fingerprint": artifact.fingerprint,
            "earlier": artifact.execution in earlier,
            "properties": formats.flatten(dict(artifact.properties)),
        }
        for key, artifact in artifacts.items()
    ]


def diagram(story: Story) -> dict | None:
    """Lays out boxes and lanes, in the units of the SVG's view box."""
    boxes = _boxes(story)
    if not boxes:
        return None
    lanes = _lanes(_edges(story, boxes))
    width = BOX + LANE * (1 + max((n["lane"] for n in lanes), default=0)) + 12
    last = boxes[-1]
    return {
        "width": width,
        "height": last["y"] + last["height"] + 1,
        "box_width": BOX,
        "boxes": boxes,
        "lanes": [_drawn(lane) for lane in lanes],
    }


def _boxes(story):
    """Places the executions below each other, earlier runs' first."""
    boxes, y = [], 1
    for execution in story.earlier.values():
        outputs = [
            (artifact.output, artifact.id)
            for step in story.steps.values()
            for artifact in step.inputs.values()
            if artifact.execution == execution.id
        ]
        box = _box(execution, "earlier", (), dict.fromkeys(outputs), y)
        boxes.append(box)
        y += box["height"] + GAP
    for step in story.steps.values():
        status = "cached" if step.cached else step.execution.status
        inputs = [(key, a.id) for key, a in step.inputs.items()]
        outputs = [(key, a.id) for key, a in step.outputs.items()]
        box = _box(step.execution, status, inputs, outputs, y)
        boxes.append(box)
        y += box["height"] + GAP
    return boxes


def _box(execution, status, inputs, outputs, y):
    """Returns a box whose rows, inputs then outputs, are on its right."""
    ports = [(name, artifact, "in") for name, artifact in inputs]
    ports += [(name, artifact, "out") for name, artifact in outputs]
    return {
        "name": execution.component,
        "execution": execution.id,
        "status": status,
        "y": y,
        "height": max(TITLE + 18, EDGE * 2 + ROW * len(ports)),
        "ports": [
            {
                "name": name,
                "artifact": artifact,
                "way": way,
                "y": y + EDGE + ROW * n + ROW / 2,
            }
            for n, (name, artifact, way) in enumerate(ports)
        ],
    }


def _edges(story, boxes):
    """Returns each artifact that is read: its start and its readers' rows."""
    starts, ends, names = {}, {}, {}
    for port in (port for box in boxes for port in box["ports"]):
        if port["way"] == "out":
            starts[port["artifact"]] = port["y"]
            names[port["artifact"]] = port["name"]
        else:
            ends.setdefault(port["artifact"], []).append(port["y"])
    return [
        {"name": names[n], "start": start, "ends": ends[n]}
        for n, start in starts.items()
        if n in ends
    ]


def _lanes(edges):
    """Gives each edge the innermost lane that is free all along it.

    Short ones first, so that they do not cross the long ones.
    """
    taken = {}
    for edge in sorted(edges, key=lambda e: max(e["ends"]) - e["start"]):
        rows = edge["start"], *edge["ends"]
        low, high = min(rows), max(rows)
        lane = 0
        while any(low <= b and a <= high for a, b in taken.get(lane, ())):
            lane += 1
        taken.setdefault(lane, []).append((low, high))
        edge["lane"] = lane
    return edges


def _drawn(edge):
    x = BOX + LANE * (edge["lane"] + 1)
    rows = edge["start"], *edge["ends"]
    return {
        "name": edge["name"],
        "lane": edge["lane"] % 5,
        "path": f"M{BOX} {edge['start']}H{x}M{x} {min(rows)}V{max(rows)}"
        + "".join(f"M{x} {end}H{BOX + 7}" for end in edge["ends"]),
        "arrows": [
            f"{BOX + 1},{end} {BOX + 8},{end - 3.5} {BOX + 8},{end + 3.5}"
            for end in edge["ends"]
        ],
    }
