# docker build --target=train --tag=transgan-tf .
# mkdir -p runs   (of the user 1000, as whom it runs)
# docker run --volume=$PWD/runs:/workspace/runs transgan-tf \
#     --dataset=mnist --run_dir=runs/mnist
#
# docker build --target=serving --tag=transgan-tf-serving .
# docker run --init --publish=127.0.0.1:8501:8501 \
#     --volume=$PWD/models:/models:ro transgan-tf-serving
#
# docker build --target=pipeline --tag=transgan-tf-pipeline .
# docker run --volume=$PWD/models:/workspace/models --entrypoint=python \
#     transgan-tf-pipeline -m pipeline.run --dataset=mnist \
#     --pipeline_root=models/pipeline --model_dir=models/transgan
# The same image is Beam's --sdk_container_image and the base image of the
# Kubeflow pipeline, see docs/kubeflow.md.

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

# What all environments hold, in a layer that changes of the code leave valid:
# the version file alone makes an empty package.
FROM python:3.11.14-slim-bookworm AS build
WORKDIR /build
COPY container/install.sh container/
RUN bash container/install.sh environment /opt/venv
COPY setup.py pyproject.toml ./
COPY transgan_tf/version.py transgan_tf/
RUN bash container/install.sh dependencies /opt/venv ""

FROM build AS build-pipeline
RUN bash container/install.sh dependencies /opt/venv pipeline,serving,kfp
COPY transgan_tf transgan_tf
COPY pipeline pipeline
COPY serving serving
RUN bash container/install.sh code /opt/venv

FROM build AS build-train
COPY transgan_tf transgan_tf
COPY pipeline pipeline
COPY serving serving
RUN bash container/install.sh code /opt/venv

FROM python:3.11.14-slim-bookworm AS user
COPY container/install.sh /build/container/
RUN bash /build/container/install.sh user /etc 1000 /home/transgan \
    /workspace /workspace/data /workspace/runs /workspace/models
ENV PATH=/opt/venv/bin:$PATH TF_CPP_MIN_LOG_LEVEL=3 PYTHONUNBUFFERED=1
WORKDIR /workspace

# Beam's workers, and Kubeflow's steps, which name a command of their own.
FROM user AS pipeline
COPY --from=apache/beam_python3.11_sdk:2.77.0 /opt/apache/beam /opt/apache/beam
COPY --from=build-pipeline /opt/venv /opt/venv
# Otherwise the workers would start in a new environment without our packages,
# in a folder that is root's.
ENV RUN_PYTHON_SDK_IN_DEFAULT_ENVIRONMENT=1
USER transgan
ENTRYPOINT ["/opt/apache/beam/boot"]

FROM user AS train
COPY --from=build-train /opt/venv /opt/venv
USER transgan
ENTRYPOINT ["python", "-m", "transgan_tf.train"]
