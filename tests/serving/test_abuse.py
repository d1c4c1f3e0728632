"""Clients that send too much, nonsense, or nothing: refused, never a crash."""

import asyncio
import contextlib
import gc
import gzip
import http.client
import json
import random
import socket
import struct
import threading
import time
import weakref

import grpc
import numpy as np
import pytest
from aiohttp import web

from serving.errors import CallError
from serving.models import Model
from serving.monitoring import Metrics
from serving.rest import Rest
from serving.rpc import make_server
from serving.runs import Runs
from serving.service import Limits
from serving.service import Service
from tests.serving.processes import exported_version
from tests.serving.processes import running
from tests.serving.tiny_versions import WIDTH
from tests.serving.tiny_versions import known_latents

MIB = 2**20
# What a server may answer to garbage; 500 would be a fault of its own.
STATUSES = {200, 400, 404, 408, 411, 413, 414, 429, 501, 503, 504}
CODES = {
    "OK",
    "DEADLINE_EXCEEDED",
    "FAILED_PRECONDITION",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "RESOURCE_EXHAUSTED",
    "UNIMPLEMENTED",
    # Of gRPC itself, for bytes that are no message.
    "UNKNOWN",
}
SECONDS = 1.0


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server with small limits and a short patience."""
    folder = tmp_path_factory.mktemp("models") / "faces"
    folder.mkdir()
    (folder / "1").symlink_to(exported_version())
    flags = (
        "--max_request_mib=8",
        "--max_batch_size=1024",
        "--max_runs=1",
        "--max_queue=3",
        f"--client_timeout_seconds={SECONDS}",
    )
    with running(folder, *flags) as server:
        yield server
        assert answers(server)


def answers(server):
    """Whether the server still does what it is for, over both interfaces."""
    document = {"instances": known_latents(2).tolist()}
    status, reply = server.predict_json(document)
    with server.stubs() as (prediction, _):
        request = server.request(latents=known_latents(2))
        images = prediction.Predict(request).outputs["images"]
    return status == 200 and np.allclose(
        np.ravel(reply["predictions"]), images.float_val, atol=1e-6
    )


def connect(server):
    host, port = server.rest.split(":")
    return socket.create_connection((host, int(port)), timeout=60)


def head(server, length, *more):
    """Returns the head of a request whose body has `length` bytes."""
    lines = [
        f"POST {server.path}:predict HTTP/1.1",
        "Host: localhost",
        f"Content-Length: {length}",
        *more,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def rest_of(connection):
    """Returns what comes until the server closes the connection."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(2**16):
            data += part
    return data


# === Too much ===


def test_a_body_of_100_mb_is_refused_before_it_is_sent(server):
    with connect(server) as connection:
        connection.sendall(head(server, 100 * MIB))
        reply = connection.recv(2**16)
    assert reply.startswith(b"HTTP/1.1 413 ")
    assert b"larger than 8388608 bytes" in reply
    assert answers(server)


def test_a_body_of_unknown_length_is_cut(server):
    connection = http.client.HTTPConnection(server.rest, timeout=60)
    sent = 0

    def parts():
        nonlocal sent
        for _ in range(100):
            sent += MIB
            yield b"0" * MIB

    with contextlib.closing(connection):
        # Later parts may find the connection closed.
        with contextlib.suppress(ConnectionError):
            connection.request("POST", f"{server.path}:predict", parts())
        with contextlib.suppress(ConnectionError):
            assert connection.getresponse().status == 413
    assert sent > 8 * MIB
    assert answers(server)


def test_a_compressed_bomb_is_refused(server):
    before = server.resident_mib()
    bomb = gzip.compress(b"0" * (300 * MIB), 1)
    headers = {"Content-Encoding": "gzip"}
    path = f"{server.path}:predict"
    assert len(bomb) < 8 * MIB
    assert server.http("POST", path, bomb, headers)[0] == 413
    assert server.resident_mib() < before + 100
    broken = server.http("POST", path, b"no gzip", headers)
    assert broken[0] == 400
    assert "not compressed" in json.loads(broken[1])["error"]
    assert answers(server)


def test_a_message_of_100_mb_is_refused(server):
    latents = np.zeros((5_000_000, WIDTH), "float32")
    with server.stubs() as (prediction, _):
        with pytest.raises(grpc.RpcError) as caught:
            prediction.Predict(server.request(latents=latents))
    assert caught.value.code().name == "RESOURCE_EXHAUSTED"
    assert answers(server)


def test_a_million_rows_are_refused(server):
    body = b'{"instances": [' + b"[0]," * 999_999 + b"[0]]}"
    status, reply = server.http("POST", f"{server.path}:predict", body)
    assert status == 400
    assert "latents has 1000000 rows, more than the 1024" in reply.decode()
    request = server.request(latents=np.zeros((1025, WIDTH), "float32"))
    tensor = request.inputs["latents"]
    sentences = {1025: "has 1025 rows", 10**6: "too large", 2**62: "too large"}
    with server.stubs() as (prediction, _):
        for rows, sentence in sentences.items():
            tensor.tensor_shape.dim[0].size = rows
            tensor.ClearField("tensor_content")
            tensor.ClearField("float_val")
            # One value stands for all.
            tensor.float_val.append(0.0)
            with pytest.raises(grpc.RpcError) as caught:
                prediction.Predict(request)
            assert caught.value.code().name == "INVALID_ARGUMENT"
            assert sentence in caught.value.details()
    assert answers(server)


@contextlib.asynccontextmanager
async def held(seconds):
    """Yields REST's and gRPC's ports, and `Runs`, whose one thread is busy.

    One more call may wait, over REST for so many seconds.
    """
    end = threading.Event()
    runs = Runs(1, 1)
    limits = Limits(MIB, 1, seconds, 30)
    service = Service(Model("faces", "nowhere"), runs, Metrics(), limits)
    runner = web.AppRunner(
        Rest(service).application(),
        handler_cancellation=True,
        shutdown_timeout=1,
    )
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    grpc_server = make_server(service)
    port = grpc_server.add_insecure_port("127.0.0.1:0")
    await grpc_server.start()
    call = asyncio.create_task(hold(runs, end))
    await asyncio.sleep(0)
    try:
        yield runner.addresses[0][1], port, runs
    finally:
        end.set()
        await call
        await grpc_server.stop(None)
        await runner.cleanup()
        runs.close()


async def hold(runs, end):
    with runs.place():
        await runs.call(lambda _: end.wait(60), None)


async def ask_rest(port, body, length=None):
    """Sends a body, as if it had more bytes; returns the reply's status."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"POST /v1/models/faces:predict HTTP/1.1\r\nHost: x\r\n"
        b"Content-Length: %d\r\n\r\n" % (length or len(body)) + body
    )
    try:
        return int((await reader.readline()).split()[1])
    finally:
        writer.close()
        await writer.wait_closed()


async def ask_grpc(port, timeout):
    """Returns the code's name of a call."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        method = "/tensorflow.serving.PredictionService/Predict"
        try:
            await channel.unary_unary(method)(b"", timeout=timeout)
        except grpc.RpcError as error:
            return error.code().name


def test_a_full_queue_is_unavailable():
    async def ask():
        async with held(30) as (rest, port, runs):
            # Nothing of its body comes, and yet it has a place.
            waiting = asyncio.create_task(ask_rest(rest, b"", 9))
            while runs._taken < 2:
                await asyncio.sleep(0.01)
            assert await ask_grpc(port, 60) == "UNAVAILABLE"
            # Refused before it is read.
            assert await ask_rest(rest, b"", 9) == 503
            waiting.cancel()
            await asyncio.wait([waiting])

    asyncio.run(ask())


def test_more_calls_than_are_read_are_exhausted():
    async def ask():
        async with held(30) as (_, port, _):
            # Their requests never come, so that none is refused for its place.
            async with grpc.aio.insecure_channel(
                f"127.0.0.1:{port}"
            ) as channel:
                path = "/tensorflow.serving.PredictionService/Predict"
                calls = [channel.stream_unary(path)() for _ in range(4)]
                for call in calls:
                    await call.wait_for_connection()
                while (code := await ask_grpc(port, 60)) == "UNAVAILABLE":
                    await asyncio.sleep(0.01)
                assert code == "RESOURCE_EXHAUSTED"
                for call in calls:
                    call.cancel()

    asyncio.run(asyncio.wait_for(ask(), 60))


def test_time_in_the_queue_counts():
    async def ask():
        async with held(0.1) as (rest, _, runs):
            assert await ask_rest(rest, b"{}") == 504
            with pytest.raises(CallError, match="no result within 0.05 sec"):
                await runs.call(lambda _: None, 0.05)

    asyncio.run(ask())


async def code_of(call):
    with pytest.raises(CallError) as caught:
        await call
    return caught.value.code


def test_a_cancelled_call_leaves_nothing():
    class Body:
        def size(self, _):
            return 1

    async def ask():
        end, runs = threading.Event(), Runs(1, 2)
        call = asyncio.create_task(hold(runs, end))
        await asyncio.sleep(0)
        bodies = []
        for _ in range(5):
            body = Body()
            bodies.append(weakref.ref(body))
            call_it = runs.call(body.size, 0.001)
            # As in a server, a task of its own; its end frees the error.
            waiting = asyncio.create_task(code_of(call_it))
            assert await waiting == "DEADLINE_EXCEEDED"
            del body, call_it, waiting
        gc.collect()
        assert not any(body() for body in bodies)
        end.set()
        await call
        assert await runs.call(Body().size, 60) == 1
        runs.close()

    asyncio.run(ask())


# === Slow clients and those that leave ===


def test_headers_that_do_not_come_are_not_waited_for(server):
    with connect(server) as connection:
        connection.sendall(b"GET /v1/models HTTP/1.1\r\nHost:")
        started = time.monotonic()
        assert rest_of(connection) == b""
    assert time.monotonic() - started < 10 * SECONDS


def test_a_body_that_drips_is_not_waited_for(server):
    with connect(server) as connection:
        connection.sendall(head(server, 10_000))
        started, sent = time.monotonic(), 0
        connection.settimeout(SECONDS / 10)
        reply = b""
        while not reply and time.monotonic() - started < 20 * SECONDS:
            connection.send(b" ")
            sent += 1
            with contextlib.suppress(TimeoutError):
                reply = connection.recv(2**16)
    assert reply.startswith(b"HTTP/1.1 408 ")
    assert b"did not come within 1 seconds" in reply
    assert sent > 2
    assert answers(server)


def test_a_reply_that_is_not_taken_is_dropped(server):
    row = [1] * WIDTH
    body = json.dumps({"instances": [row] * 1000}).encode()
    with socket.socket() as connection:
        # Less than a reply, so that the rest waits in the server.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(60)
        host, port = server.rest.split(":")
        connection.connect((host, int(port)))
        # More than any network's buffers hold; they come one after the other.
        connection.sendall(30 * (head(server, len(body)) + body))
        reply = connection.recv(500)
        # Only time tells the server that nobody reads.
        time.sleep(4 * SECONDS)
        length = int(reply.split(b"Content-Length: ")[1].split(b"\r\n")[0])
        assert 30 * length > 64 * MIB
        assert len(rest_of(connection)) < 29 * length
    assert answers(server)


def test_clients_may_leave_at_any_time(server):
    body = json.dumps({"instances": known_latents(64).tolist()}).encode()
    whole = head(server, len(body)) + body
    reset = struct.pack("ii", 1, 0)
    for cut in np.linspace(1, len(whole), 60, dtype=int):
        with connect(server) as connection:
            # Closing is then a reset.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            connection.sendall(whole[:cut])
    request = server.request(latents=known_latents(64))
    with server.stubs() as (prediction, _):
        calls = [prediction.Predict.future(request) for _ in range(60)]
        for call in calls:
            call.cancel()
    host, port = server.grpc.split(":")
    for data in (whole, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 99):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(data)
    wait_until_answers(server)


def wait_until_answers(server):
    """Lets the server run what cancelled calls have left in its queue."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(grpc.RpcError, KeyError):
            if answers(server):
                return
        time.sleep(0.05)
    raise AssertionError("the server does not answer")


# === Garbage ===


@pytest.mark.parametrize(
    "path", [b"/v1/models/\xff:predict", b"/v1/models/%ff:predict"]
)
def test_paths_that_are_no_text(server, path):
    lines = [b"POST " + path + b" HTTP/1.1", b"Host: x", b"Content-Length: 13"]
    with connect(server) as connection:
        connection.sendall(b"\r\n".join([*lines, b"", b'{"inputs": 1}']))
        status = connection.recv(2**16).split()[1]
    assert status in (b"400", b"404")


def test_signature_names_that_are_no_text(server):
    for method in ("predict", "classify"):
        body = b'{"signature_name": "\xff\\ud800", "examples": [1]}'
        path = f"{server.path}:{method}"
        assert server.http("POST", path, body)[0] == 400


def test_input_names_that_are_no_text(server):
    body = b'{"inputs": {"\xff\\ud800": [1]}}'
    status, reply = server.http("POST", f"{server.path}:predict", body)
    assert status == 400
    assert b"Missing named input: latents" in reply


TOKENS = (
    '{"b64": "YQ=="}',
    "{}",
    "[]",
    "[[1, 2], [3]]",
    "null",
    "true",
    "-1",
    "1e400",
    "NaN",
    "9" * 30,
    "9" * 5000,
    '"\\ud800"',
    '"x"',
    "[" * 3000,
    '{"latents": ' * 500,
    "[1, 2, 3, 4, 5]",
)
SIGNATURES = (
    "serving_default",
    "sample",
    "interpolate",
    "__saved_model_init_op",
    "x",
    "",
)


def random_body(random):
    """Returns a body that is nearly a request, or far from one."""
    token = random.choice(TOKENS)
    name = random.choice(SIGNATURES)
    kind = random.choice(("instances", "inputs", "examples", "\x00"))
    items = ", ".join(random.choices(TOKENS, k=random.randrange(4)))
    body = random.choice(
        (
            f'{{"signature_name": "{name}", "{kind}": {token}}}',
            f'{{"signature_name": "{name}", "{kind}": [{items}]}}',
            f'{{"{kind}": {{"seed": {token}, "truncation": [{items}]}}}}',
            f'{{"inputs": [[{items}]], "instances": {token}}}',
            token,
        )
    ).encode()
    return spoiled(body, random)


def spoiled(data, random):
    """Returns bytes with some changed, cut off or put in."""
    data = bytearray(data)
    for _ in range(random.choice((0, 0, 1, 3, 20))):
        place = random.randrange(len(data) + 1)
        action = random.randrange(3)
        if action == 0:
            data[place : place + 1] = random.randbytes(1)
        elif action == 1:
            data[place:place] = random.randbytes(random.randrange(9))
        else:
            del data[place : place + random.randrange(9)]
    return bytes(data)


def send_http(server, connection, random):
    """Sends a garbage request over a kept connection; returns the status."""
    paths = (
        "{0}:predict",
        "{0}:classify",
        "{0}/metadata",
        "{0}",
        "{0}x",
        "/v1/{1}",
    )
    # Spaces and controls would not leave `http.client`.
    noise = "".join(random.choices("abc/:%2e0?&=~;", k=random.randrange(20)))
    path = random.choice(paths[:1] * 5 + paths).format(server.path, noise)
    verb = random.choice(("POST", "POST", "POST", "GET", "PUT", "BREW"))
    headers = {}
    if random.random() < 0.1:
        headers["Content-Encoding"] = random.choice(("gzip", "br", "x"))
    connection.request(verb, path, random_body(random), headers)
    response = connection.getresponse()
    response.read()
    return response.status


def random_message(server, random):
    """Returns the bytes of a `PredictRequest`, spoiled."""
    request = server.request(random.choice(SIGNATURES))
    if random.random() < 0.05:
        request.model_spec.name = "nobody"
    aliases = ("latents", "seed", "truncation", "position", "\N{SNOWMAN}")
    for alias in random.sample(aliases, random.randrange(4)):
        tensor = request.inputs[alias]
        tensor.dtype = random.choice((0, 1, 3, 7, 9, 20, 23, 101, 999))
        for _ in range(random.choice((0, 1, 2, 3, random.randrange(70)))):
            size = random.choice((-1, 0, 1, 2, 5, 2**31, 2**62))
            tensor.tensor_shape.dim.add(size=size)
        if random.random() < 0.5:
            tensor.tensor_content = random.randbytes(random.randrange(99))
        tensor.float_val.extend([1.5] * random.randrange(3))
        tensor.int64_val.extend([7] * random.randrange(3))
        tensor.string_val.extend([b"\xff"] * random.randrange(3))
    return spoiled(request.SerializeToString(), random)


def test_strings_of_many_dimensions_do_not_crash(server):
    request = server.request(latents=np.array([b"x"], object))
    for _ in range(32):
        request.inputs["latents"].tensor_shape.dim.add(size=1)
    with grpc.insecure_channel(server.grpc) as channel:
        code = send_grpc(channel, request.SerializeToString())
        assert code == "INVALID_ARGUMENT"
    assert answers(server)


def send_grpc(channel, data):
    """Sends bytes as a Predict request; returns the code's name."""
    method = "/tensorflow.serving.PredictionService/Predict"
    try:
        channel.unary_unary(method)(data, timeout=60)
    except grpc.RpcError as error:
        return error.code().name
    return "OK"


def bombard(server, requests, seed):
    """Sends as much garbage over either interface; returns the answers."""
    source = random.Random(seed)
    seen = set()
    connection = http.client.HTTPConnection(server.rest, timeout=60)
    with grpc.insecure_channel(server.grpc) as channel:
        for _ in range(requests // 2):
            try:
                seen.add(send_http(server, connection, source))
            except (ConnectionError, http.client.HTTPException):
                # Cut, as after a body that could not be read.
                connection.close()
            seen.add(send_grpc(channel, random_message(server, source)))
    connection.close()
    return seen


def check_garbage(server, requests, most_mib):
    """Garbage leaves the server answering and its memory flat."""
    seen = bombard(server, requests // 4, seed=1)
    before = server.resident_mib()
    seen |= bombard(server, requests, seed=2)
    grown = server.resident_mib() - before
    assert seen <= STATUSES | CODES
    assert {200, 400, 404, "INVALID_ARGUMENT", "NOT_FOUND"} <= seen
    assert grown < most_mib
    assert answers(server)


def test_garbage_is_answered(server):
    check_garbage(server, 600, most_mib=30)


@pytest.mark.slow
def test_ten_thousand_pieces_of_garbage_leave_no_trace(server):
    check_garbage(server, 10_000, most_mib=30)
