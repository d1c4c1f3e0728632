# docker build --target=train --tag=transgan-tf .
# mkdir -p runs   (of the user 1000, as whom it runs)
# docker run --volume=$PWD/runs:/workspace/runs transgan-tf \
#     --dataset=mnist --run_dir=runs/mnist

FROM python:3.11.14-slim-bookworm AS build
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PIP_NO_CACHE_DIR=1
WORKDIR /build
# The version file alone makes an empty package: this installs the
# dependencies in a layer that changes of the code leave valid.
COPY setup.py pyproject.toml ./
COPY transgan_tf/version.py transgan_tf/
RUN pip install .
COPY transgan_tf transgan_tf
COPY pipeline pipeline
COPY serving serving
RUN pip install --no-deps --force-reinstall .

FROM python:3.11.14-slim-bookworm AS train
RUN useradd --create-home --uid 1000 transgan \
    && install --directory --owner=transgan \
        /workspace /workspace/data /workspace/runs
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH TF_CPP_MIN_LOG_LEVEL=3 PYTHONUNBUFFERED=1
USER transgan
WORKDIR /workspace
ENTRYPOINT ["python", "-m", "transgan_tf.train"]
