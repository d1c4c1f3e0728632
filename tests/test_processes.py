"""A child ends with the process that started it."""

import os
import select
import subprocess
import sys

from transgan_tf.processes import tied_to_this

PARENT = """
import subprocess, sys, time
from transgan_tf.processes import tied_to_this
child = [sys.executable, "-c", "import time; print('up', flush=True); "
         "time.sleep(600)"]
subprocess.Popen(tied_to_this(child))
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
from transgan_tf.processes import tied_to_this
server = grpc.server(futures.ThreadPoolExecutor(1))
port = server.add_insecure_port("localhost:0")
server.start()
channel = grpc.insecure_channel(f"localhost:{port}")
grpc.channel_ready_future(channel).result(30)
child = [sys.executable, "-c", "print('up')"]
for _ in range(5):
    subprocess.run(tied_to_this(child), check=True)
channel.close()
server.stop(None).wait()
"""


def test_a_child_starts_beside_grpc():
    told = subprocess.run(
        [sys.executable, "-c", BESIDE_GRPC],
        capture_output=True,
        check=True,
        text=True,
    )
    assert told.stdout == "up\n" * 5
    # In a fork gRPC's handlers would speak, or abort the child.
    assert "fork" not in told.stderr


def test_a_child_has_its_words_and_its_status():
    code = "import sys; print(sys.argv[1:]); sys.exit(7)"
    command = [sys.executable, "-c", code, "a b", "--c", ""]
    told = subprocess.run(tied_to_this(command), capture_output=True, text=True)
    assert (told.returncode, told.stdout) == (7, "['a b', '--c', '']\n")


def test_a_child_whose_parent_is_gone_does_not_start():
    words = tied_to_this([sys.executable, "-c", "1 / 0"])
    # The process id of another one that is not its parent.
    words[words.index(str(os.getpid()))] = "1"
    told = subprocess.run(words, capture_output=True)
    assert (told.returncode, told.stderr) == (1, b"")
