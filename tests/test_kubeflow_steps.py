"""A step of Kubeflow's, called as kfp calls it but in this process."""

import json
from types import SimpleNamespace

import pytest

from pipeline import kubeflow_steps
from pipeline.orchestration.component import ComponentError
from pipeline.orchestration.files import fingerprint
from pipeline.orchestration.files import record


class Body:
    """A component's function, which fails as often as it is told to."""

    failures = 0
    error = RuntimeError("the node is gone")

    @classmethod
    def run(cls, images, before, kept, made, size):
        cls.images, cls.before, cls.size = images, before, size
        cls.root = kept.parents[2]
        assert not list(made.iterdir())
        steps = len(list(kept.iterdir()))
        (kept / f"step{steps}").write_text("done")
        (made / "half").write_text("written")
        if steps < cls.failures:
            raise cls.error
        return {"made": {"blessed": 1}}


run = Body.run


@pytest.fixture(autouse=True)
def body(monkeypatch):
    monkeypatch.setattr(Body, "failures", 0)
    return Body


@pytest.fixture
def step(tmp_path):
    """Calls the step for the run 7, and returns its outputs."""
    images = tmp_path / "images"
    images.mkdir()
    (images / "1.png").write_text("pixels")

    def artifact(name, metadata):
        return SimpleNamespace(
            uri=f"minio://bucket/v2/run-7/maker/{name}",
            path=str(tmp_path / name),
            metadata=metadata,
        )

    def call(**metadata):
        outputs = {name: artifact(name, {}) for name in ("kept", "made")}
        kubeflow_steps.run(
            "Maker",
            f"{__name__}:run",
            {"images": artifact("images", metadata), "before": None},
            outputs,
            ("kept",),
            json.dumps({"size": 5}),
            str(tmp_path / "volume"),
        )
        return outputs

    return call


def test_outputs_are_whole_and_say_what_they_are(step, body, tmp_path):
    outputs = step(fingerprint="f" * 64, dataset="mnist")
    assert body.images.fingerprint == "f" * 64
    assert body.images.properties == {"dataset": "mnist"}
    assert body.before is None
    assert body.size == 5 and isinstance(body.size, int)
    assert (tmp_path / "made/half").read_text() == "written"
    found = fingerprint(record(tmp_path / "made"))
    assert outputs["made"].metadata == {"blessed": 1, "fingerprint": found}
    assert set(outputs["kept"].metadata) == {"fingerprint"}


def test_a_run_is_told_by_the_folder_and_leaves_nothing(step, body, tmp_path):
    step()
    place = tmp_path / "volume/bucket/v2/run-7/maker"
    assert body.root == place
    assert not place.exists()


def test_what_is_imported_gets_a_fingerprint(step, body, tmp_path):
    step()
    found = fingerprint(record(tmp_path / "images"))
    assert body.images.fingerprint == found


def test_a_second_try_goes_on(step, body, tmp_path):
    body.failures = 1
    with pytest.raises(RuntimeError):
        step()
    assert not (tmp_path / "kept").exists()
    step()
    names = sorted(path.name for path in (tmp_path / "kept").iterdir())
    assert names == ["step0", "step1"]


def test_a_users_error_is_a_sentence_and_a_status(
    step, body, monkeypatch, capsys
):
    body.failures = 1
    monkeypatch.setattr(Body, "error", ComponentError("no room is left"))
    with pytest.raises(SystemExit) as ended:
        step()
    assert ended.value.code == 1
    assert capsys.readouterr().err == "error: no room is left\n"
