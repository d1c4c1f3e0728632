"""From a run to images of a served model: the commands as users join them."""

import shutil

import numpy as np
import pytest
from PIL import Image

from serving import export
from serving.client import Client
from serving.client import __main__ as command
from tests.serving.processes import running
from tests.serving.tiny_run import write_run
from transgan_tf import pictures
from transgan_tf import sampling
from transgan_tf.checkpoints import load_generator
from transgan_tf.randomness import latents

SEEDS = np.array([0, 1, 7, 2**40])


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run") / "tiny")


@pytest.fixture(scope="module")
def server(run_dir, tmp_path_factory):
    """A server of what the run's export command made."""
    model_dir = tmp_path_factory.mktemp("models") / "transgan"
    flags = [f"--run_dir={run_dir}", f"--model_dir={model_dir}"]
    assert export.main(flags) == 0
    with running(model_dir) as server:
        yield server


@pytest.fixture(scope="module")
def generator(run_dir):
    return load_generator(run_dir)


@pytest.fixture(params=["http", "grpc"])
def client(request, server):
    places = {"http": server.rest, "grpc": server.grpc}
    with Client(f"{request.param}://{places[request.param]}") as client:
        yield client


def test_a_seed_is_the_image_of_the_library(client, generator):
    served = client.sample(SEEDS, truncation=0.7)
    expected = sampling.generate(generator, SEEDS, truncation=0.7)
    assert served.dtype == np.uint8 and served.shape == expected.shape
    assert np.abs(served.astype(int) - expected).max() <= 1


def test_latents_are_the_images_of_the_library(client, generator):
    z = latents(SEEDS, generator.config.latent_dim).numpy()
    expected = np.clip(generator(z).numpy(), -1, 1)
    np.testing.assert_allclose(client.latents(z), expected, atol=1e-5)


def test_a_walk_is_that_of_the_library(client, generator):
    served = client.interpolate(3, 8, frames=4)
    z = latents(np.array([3, 8]), generator.config.latent_dim).numpy()
    path = [sampling.slerp(*z, position) for position in np.linspace(0, 1, 4)]
    expected = sampling.render(generator, np.float32(path))
    assert np.abs(served.astype(int) - expected).max() <= 1


def test_the_clients_grid_is_that_of_sample(server, generator, tmp_path):
    output = tmp_path / "grid.png"
    flags = ["--seed=2", "--num_images=5", f"--output={output}"]
    assert command.main([f"--address=http://{server.rest}", *flags]) == 0
    with Image.open(output) as image:
        served = np.asarray(image).astype(int)
    images = sampling.generate(generator, np.arange(2, 7))
    assert np.abs(served - pictures.grid(images)).max() <= 1


def test_exports_and_rollbacks_reach_clients(server, run_dir, tmp_path):
    newer = tmp_path / "newer"
    shutil.copytree(run_dir, newer)
    write_run(newer, seed=5, step=4)
    model_dir = f"--model_dir={server.folder}"
    with Client(f"grpc://{server.grpc}") as client:
        first = client.sample(SEEDS)
        assert export.main([f"--run_dir={newer}", model_dir]) == 0
        server.wait_for(2, "AVAILABLE")
        second = client.sample(SEEDS)
        assert (first != second).any()
        assert export.main(["--rollback", model_dir]) == 0
        server.wait_for(3, "AVAILABLE")
        np.testing.assert_array_equal(client.sample(SEEDS), first)
