"""A child ends with the process that started it."""

import select
import subprocess
import sys

PARENT = """
import subprocess, sys, time
from transgan_tf.processes import killed_with_this
child = [sys.executable, "-c", "import time; print('up', flush=True); "
         "time.sleep(600)"]
subprocess.Popen(child, preexec_fn=killed_with_this())
time.sleep(600)
"""


def test_a_killed_process_takes_its_child_along():
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout.readline() == "up\n"
    parent.kill()
    # The child has the pipe, too: it ends when both are gone.
    assert select.select([parent.stdout], [], [], 30)[0]
    assert parent.communicate() == ("", None)
