"""Model folders: real folders, real processes, no TensorFlow."""

import json
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from serving import versions
from serving.versions import VersionError
from serving.versions import find_versions
from serving.versions import parse_version
from serving.versions import publish
from serving.versions import staging

NOBODY = 65534


def release(model_dir, **card):
    """Publishes a version; returns its folder."""
    with staging(model_dir) as folder:
        (folder / "variables").mkdir()
        (folder / "variables" / "data").write_text(f"{card}")
        versions.write_card(folder, card)
        return publish(folder)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("1", 1),
        ("00000123", 123),
        ("+5", 5),
        ("-3", -3),
        (" 7\n", 7),
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
        ("9223372036854775808", None),
        ("", None),
        ("-", None),
        ("1.0", None),
        ("1_000", None),
        ("0x1", None),
        ("2 3", None),
        ("\u0663", None),
        (".staging-1", None),
        ("v1", None),
    ],
)
def test_names_are_read_as_tensorflow_serving_reads_them(name, number):
    assert parse_version(name) == number


def test_versions_come_in_the_order_of_their_numbers(tmp_path):
    for name in ("10", "9", "002", ".staging-3", "latest"):
        (tmp_path / name).mkdir()
    (tmp_path / "11").write_text("a file counts, as for a server")
    assert list(find_versions(tmp_path)) == [2, 9, 10, 11]
    assert find_versions(tmp_path)[2] == tmp_path / "002"


def test_each_version_gets_the_next_number(tmp_path):
    model_dir = tmp_path / "models" / "transgan"
    assert release(model_dir).name == "1"
    (model_dir / "0041").mkdir()
    assert release(model_dir).name == "42"
    assert names(model_dir) == [".lock", "0041", "1", "42"]
    content = (model_dir / "42" / "variables" / "data").read_text()
    assert content == "{}"


def test_negative_numbers_are_not_followed_by_zero(tmp_path):
    (tmp_path / "-5").mkdir()
    assert release(tmp_path).name == "1"


def test_after_the_highest_number_there_is_none(tmp_path):
    (tmp_path / str(2**63 - 1)).mkdir()
    with pytest.raises(VersionError, match="after which there is no number"):
        release(tmp_path)
    assert names(tmp_path) == [".lock", str(2**63 - 1)]


def test_others_may_read_a_version(tmp_path):
    mask = os.umask(0o022)
    try:
        version = release(tmp_path)
    finally:
        os.umask(mask)
    assert stat.S_IMODE(version.stat().st_mode) == 0o755


def test_everything_is_on_the_disk_before_the_number_appears(
    tmp_path, monkeypatch
):
    fsync, synced = os.fsync, []

    def record(descriptor):
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        synced.append((path.name, list(find_versions(tmp_path))))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    release(tmp_path)
    before = [name for name, seen in synced if not seen]
    for name in ("data", "variables", "model_card.json"):
        assert name in before
    assert before[-1].startswith(".staging-")
    assert synced[-1] == (tmp_path.name, [1])


def test_what_fails_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), staging(tmp_path) as folder:
        (folder / "saved_model.pb").write_text("half")
        assert find_versions(tmp_path) == {}
        _ = 1 / 0
    assert names(tmp_path) == [".lock"]


PUBLISHER = """
import sys
from tests.serving.test_versions import release
for number in range(10):
    print(release(sys.argv[1], process=int(sys.argv[2]), number=number).name)
"""
HOLDER = """
import sys
from serving.versions import staging
with staging(sys.argv[1]) as folder:
    (folder / "saved_model.pb").write_text("half")
    print(folder.name, flush=True)
    sys.stdin.read()
"""


def start(code, *words):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_processes_that_publish_at_once_get_numbers_of_their_own(tmp_path):
    processes = [start(PUBLISHER, tmp_path, number) for number in range(3)]
    outputs = [process.communicate()[0].split() for process in processes]
    numbers = [int(number) for output in outputs for number in output]
    assert sorted(numbers) == list(range(1, 31))
    assert list(find_versions(tmp_path)) == list(range(1, 31))
    for process, output in enumerate(outputs):
        assert [int(n) for n in output] == sorted(int(n) for n in output)
        for number, name in enumerate(output):
            card = json.loads((tmp_path / name / "model_card.json").read_text())
            assert card == {"process": process, "number": number}


def test_a_number_that_was_just_taken_is_passed_over(tmp_path, monkeypatch):
    release(tmp_path, mine=False)
    stale = iter([{}])
    monkeypatch.setattr(
        versions, "find_versions", lambda folder: next(stale, {1: folder / "1"})
    )
    assert release(tmp_path, mine=True).name == "2"
    for name, mine in (("1", False), ("2", True)):
        card = json.loads((tmp_path / name / "model_card.json").read_text())
        assert card == {"mine": mine}


def test_leftovers_of_the_killed_go_when_nobody_is_at_work(tmp_path):
    living, killed = start(HOLDER, tmp_path), start(HOLDER, tmp_path)
    kept, left = (p.stdout.readline().strip() for p in (living, killed))
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert find_versions(tmp_path) == {}
    release(tmp_path)
    assert names(tmp_path) == sorted([".lock", "1", kept, left])
    living.communicate("end")
    assert names(tmp_path) == sorted([".lock", "1", left])
    release(tmp_path)
    assert names(tmp_path) == [".lock", "1", "2"]


def test_the_oldest_versions_go(tmp_path):
    for _ in range(4):
        version = release(tmp_path)
    removed = versions.prune(version, keep=2)
    assert [path.name for path in removed] == ["1", "2"]
    assert names(tmp_path) == [".lock", "3", "4"]
    assert versions.prune(version, keep=2) == []


def test_what_was_published_stays_though_others_are_newer(tmp_path):
    published = release(tmp_path)
    for _ in range(3):
        release(tmp_path)
    versions.prune(published, keep=1)
    assert names(tmp_path) == [".lock", "1", "4"]


def go_back(model_dir):
    """Rolls back without a look at the content; returns what is served."""
    earlier = versions.earlier_version(model_dir)
    with staging(model_dir) as folder:
        versions.copy_version(earlier, folder)
        return publish(folder)


def test_going_back_again_goes_back_further(tmp_path):
    for number in (1, 2, 3):
        release(tmp_path, content=number)
    served = []
    for _ in range(2):
        version = go_back(tmp_path)
        card = json.loads((version / "model_card.json").read_text())
        served.append((version.name, card["content"], card["republished_from"]))
    assert served == [("4", 2, 2), ("5", 1, 1)]
    with pytest.raises(VersionError, match="no version before 1 to go back"):
        go_back(tmp_path)
    # A new version, and back to the one that was served before it.
    release(tmp_path, content=6)
    assert go_back(tmp_path).name == "7"
    assert versions.origin_of(tmp_path / "7") == 1
    content = [
        (tmp_path / name / "variables" / "data").read_text()
        for name in ("1", "7")
    ]
    assert content[0] == content[1]


@pytest.mark.parametrize(
    "card", ["{", "[]", '{"republished_from": "2"}', '{"republished_from": 9}']
)
def test_a_card_that_says_nothing_true_is_no_copy(tmp_path, card):
    version = release(tmp_path)
    (version / "model_card.json").write_text(card)
    assert versions.origin_of(version) == 1


def test_without_two_versions_there_is_no_way_back(tmp_path):
    with pytest.raises(VersionError, match="cannot be read"):
        go_back(tmp_path / "missing")
    with pytest.raises(VersionError, match="has no version: export one first"):
        go_back(tmp_path)
    release(tmp_path)
    with pytest.raises(VersionError, match="no version before 1 .* it has 1"):
        go_back(tmp_path)


def test_only_a_folder_of_versions_takes_one(tmp_path):
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(VersionError, match="is a file: choose another"):
        release(path)
    with pytest.raises(VersionError, match="file/model cannot be written"):
        release(path / "model")
    versions.check_writable(tmp_path / "new" / "model")
    assert not (tmp_path / "new").exists()
    version = tmp_path / "1"
    version.mkdir()
    (version / "saved_model.pb").write_text("")
    with pytest.raises(VersionError, match=f"--model_dir={tmp_path}"):
        release(version)


def test_one_at_a_time_looks_and_pushes(tmp_path):
    folder, done = tmp_path / "new" / "model", threading.Event()

    def push():
        with versions.pushing(folder):
            done.set()

    with versions.pushing(folder):
        thread = threading.Thread(target=push)
        thread.start()
        assert not done.wait(0.2)
        # It does not keep who exports from publishing.
        assert release(folder).name == "1"
    thread.join()
    assert done.is_set()


@pytest.fixture
def closed_folder(tmp_path):
    """A folder that may not be written, not even by root."""
    tmp_path.chmod(0o500)
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    yield tmp_path
    os.seteuid(user)
    tmp_path.chmod(0o700)


def test_a_folder_that_may_not_be_written(closed_folder):
    with pytest.raises(VersionError) as caught:
        release(closed_folder / "model")
    assert str(caught.value) == (
        f"{closed_folder}/model cannot be written (Permission denied): choose "
        "another --model_dir, or give yourself permission"
    )
    with pytest.raises(VersionError, match="cannot be read .Permission denied"):
        go_back(closed_folder / "model")
