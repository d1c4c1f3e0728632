"""How two workers stop when one of them must: together, each with a word."""

import re
import signal

import pytest

from tests.pair import ADDRESS
from tests.pair import ENDLESS
from tests.pair import interrupt_group
from tests.pair import run
from tests.pair import started

pytestmark = pytest.mark.slow

LOST = rf"error: worker {{}} {ADDRESS} was lost or has ended: start all "


def ends(pair):
    """Returns the exit status and the last line of each."""
    return [process.ended() for process in pair]


def test_a_full_disk_at_the_chief_ends_both(tmp_path):
    assert run(tmp_path / "run0", **ENDLESS | {"steps": 10}) == 0
    # Less than a checkpoint takes, and more than any other file.
    full = ENDLESS | {"fault": ("files", 20_000)}
    with started(tmp_path, full, ENDLESS) as pair:
        (status, line), (other_status, other_line) = ends(pair)
    chief, other = pair
    assert (status, other_status) == (1, 1)
    assert "goes on at step 10" in chief.said()
    folder = f"{tmp_path}/run0/checkpoints"
    sentence = f"error: the checkpoint {folder}/step-000000020 cannot be wr"
    assert line.startswith(sentence), line
    assert re.match(LOST.format(0), other_line), other_line
    for process in pair:
        assert "Traceback" not in process.said()
    assert chief.latest() == 10
    # There is room again.
    longer = ENDLESS | {"steps": 12}
    with started(tmp_path, longer, longer) as pair:
        assert [status for status, _ in ends(pair)] == [0, 0]
    assert "goes on at step 10" in pair[0].said()
    assert pair[0].latest() == 12


def test_numbers_that_are_not_finite_on_one_end_both(tmp_path):
    options = ENDLESS | {"max_bad_steps": 4}
    bad = options | {"fault": ("numbers", 12)}
    with started(tmp_path, options, bad) as pair:
        found = ends(pair)
    for status, line in found:
        assert status == 1
        sentence = "error: the losses or gradients of 4 steps in a row, up to "
        assert line.startswith(f"{sentence}step 16, are not finite"), line
    assert pair[0].latest() == 10


@pytest.mark.parametrize("who", ["chief", "other", "both"])
def test_ctrl_c_stops_both_after_the_same_step(tmp_path, who):
    with started(tmp_path, ENDLESS, ENDLESS) as pair:
        chief, other = pair
        chief.wait_for(chief.latest)
        if who == "both":
            interrupt_group(chief)
        else:
            {"chief": chief, "other": other}[who].send_signal(signal.SIGINT)
        found = ends(pair)
    saved = (130, f"interrupted and saved at step {chief.latest()}")
    assert found == [saved, saved]
    assert chief.latest() < ENDLESS["steps"]


def test_an_error_of_the_model_is_not_taken_for_an_images(tmp_path):
    broken = ENDLESS | {"fault": ("model", 12)}
    with started(tmp_path, ENDLESS, broken) as pair:
        (status, line), (other_status, _) = ends(pair)
    assert (status, other_status) == (1, 1)
    assert re.match(LOST.format(1), line), line
    said = pair[1].said()
    assert "InvalidArgumentError" in said and "the model is broken" in said
    assert "cannot be read" not in said
