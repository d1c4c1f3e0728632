"""Sources and datasets on a file system that is not the local disk."""

import pytest

from pipeline import verify
from tests import memory_files
from tests import prepared
from tests.photos import crop
from tests.photos import encoded
from tests.photos import write_folder
from tests.photos import write_tar
from tests.photos import write_zip
from tests.prepared import contents
from tests.prepared import prepare

FILES = {f"{c}/{n}.png": encoded(crop(n)) for c in "ab" for n in range(40)}


@pytest.fixture
def store():
    """An empty object store."""
    memory_files.OBJECTS.clear()
    return memory_files.OBJECTS


def put(store, path, content):
    store[path] = (content, 1.0)


def dataset_of(store, folder="mem://b/data/cats"):
    """Returns the bytes of a dataset's files by name."""
    return {
        path.removeprefix(f"{folder}/"): content
        for path, (content, _) in store.items()
        if path.startswith(f"{folder}/")
    }


def test_a_remote_folder_makes_the_same_bytes(store, tmp_path, capsys):
    local = prepare(tmp_path, source=write_folder(tmp_path / "p", FILES))
    for name, content in FILES.items():
        put(store, f"mem://b/photos/{name}", content)
    put(store, "mem://b/photos/.hidden/x.png", b"no image")
    put(store, "mem://b/photosother/x.png", b"no image")
    flags = {"source": "mem://b/photos"}
    assert prepared.run("mem://b/data", **flags) == 0
    # Nothing else is left there, no work either.
    assert dataset_of(store) == contents(local)
    assert verify.main(["--dataset_dir=mem://b/data/cats"]) == 0
    assert prepared.run("mem://b/data", **flags) == 0
    assert "is there already" in capsys.readouterr().out
    assert prepared.run("mem://b/data", **flags, min_size=2) == 1
    assert "min_size: 1 -> 2" in capsys.readouterr().err


def test_remote_archives_make_the_same_records(store, tmp_path):
    made = []
    for source in (
        write_zip(tmp_path / "p.zip", FILES),
        write_tar(tmp_path / "p.tar", FILES),
        write_tar(tmp_path / "p.tar.gz", FILES, "w:gz"),
    ):
        path = f"mem://b/{source.name}"
        put(store, path, source.read_bytes())
        output = f"mem://b/{source.name}.data"
        assert prepared.run(output, source=path) == 0
        found = dataset_of(store, f"{output}/cats")
        made.append({n: c for n, c in found.items() if n != "manifest.json"})
    assert made[0] == made[1] == made[2]


def test_what_a_job_left_there_is_removed_and_others_work_is_kept(
    store, capsys
):
    for name, content in FILES.items():
        put(store, f"mem://b/photos/{name}", content)
    put(store, f"mem://b/data/cats/.work-{'0' * 32}/spill-1-1-0", b"old")
    put(store, "mem://b/data/cats/train-00000-of-00003.tfrecord", b"old")
    assert prepared.run("mem://b/data", source="mem://b/photos") == 0
    assert not any(".work-" in path for path in store)
    put(store, "mem://b/data/dogs/thesis.txt", b"years of work")
    flags = {"dataset": "dogs", "source": "mem://b/photos"}
    assert prepared.run("mem://b/data", **flags) == 1
    assert "holds something that is not a dataset" in capsys.readouterr().err
    assert dataset_of(store, "mem://b/data/dogs") == {
        "thesis.txt": b"years of work"
    }


def test_a_file_system_that_is_not_installed(tmp_path, capsys):
    assert prepared.run(tmp_path, source="nosuch://bucket/photos") == 1
    assert "Beam's part for it is not installed" in capsys.readouterr().err


def test_lmdb_is_local_only(store, tmp_path, capsys):
    flags = {"source": "mem://b/x_lmdb", "source_type": "lmdb"}
    assert prepared.run(tmp_path, **flags) == 1
    assert "is remote, where LMDB cannot work" in capsys.readouterr().err
