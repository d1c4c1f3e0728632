# docker build --target=train --tag=transgan-tf .
# mkdir -p runs   (of the user 1000, as whom it runs)
# docker run --volume=$PWD/runs:/workspace/runs transgan-tf \
#     --dataset=mnist --run_dir=runs/mnist
#
# docker build --target=serving --tag=transgan-tf-serving .
# docker run --init --publish=127.0.0.1:8501:8501 \
#     --volume=$PWD/models:/models:ro transgan-tf-serving

# Not older than the TensorFlow that exports (setup.py): an older server may
# lack operations of the graph. It holds the settings; models are mounted.
FROM tensorflow/serving:2.21.0 AS serving
COPY serving/config /config
ENV MODEL_NAME=transgan REST_PORT=8501
EXPOSE 8500 8501
USER 1000:1000
# The image's own entry point would name a model of its own. What follows the
# image's name in `docker run` is added to these.
ENTRYPOINT ["tensorflow_model_server", \
    "--port=8500", \
    "--rest_api_port=8501", \
    "--model_config_file=/config/models.config", \
    "--monitoring_config_file=/config/monitoring.config", \
    "--enable_batching=true", \
    "--batching_parameters_file=/config/batching.config"]
CMD []
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["bash", "/config/healthcheck.sh"]

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
