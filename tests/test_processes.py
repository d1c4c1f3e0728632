"""A child ends with the process that started it."""

import select
import subprocess
import sys

from transgan_tf.processes import tied

PARENT = """
import subprocess, sys, time
from transgan_tf.processes import tied
child = [sys.executable, "-c", "import time; print('up', flush=True); "
         "time.sleep(600)"]
subprocess.Popen(tied(child))
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


BESIDE_GRPC = """
import subprocess, sys
from concurrent import futures
import grpc
from transgan_tf.processes import tied
server = grpc.server(futures.ThreadPoolExecutor(1))
port = server.add_insecure_port("localhost:0")
server.start()
channel = grpc.insecure_channel(f"localhost:{port}")
grpc.channel_ready_future(channel).result(30)
for _ in range(5):
    subprocess.run(tied([sys.executable, "-c", "print('up')"]), check=True)
"""


def test_a_child_starts_beside_grpc():
    # Its fork handlers would speak, and now and then abort the child.
    told = subprocess.run(
        [sys.executable, "-c", BESIDE_GRPC],
        capture_output=True,
        check=True,
        text=True,
    )
    assert (told.stdout, told.stderr) == ("up\n" * 5, "")


def test_a_child_has_its_words_and_its_status():
    code = "import sys; print(sys.argv[1:]); sys.exit(7)"
    command = [sys.executable, "-c", code, "a b", "--c", ""]
    told = subprocess.run(tied(command), capture_output=True, text=True)
    assert (told.returncode, told.stdout) == (7, "['a b', '--c', '']\n")


def test_a_child_whose_parent_is_gone_does_not_start():
    program, flag, module, _, *command = tied([sys.executable, "-c", "1 / 0"])
    told = subprocess.run(
        [program, flag, module, "1", *command], capture_output=True
    )
    assert (told.returncode, told.stderr) == (1, b"")
