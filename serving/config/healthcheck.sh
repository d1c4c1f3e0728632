#!/bin/bash
# Succeeds if a version of the model is AVAILABLE: the server answers 200 for a
# model that is still loading, too. By bash, since the image has no curl.
#
# MODEL_NAME  the model
# REST_PORT   the port, 8501 by default

exec 3<>"/dev/tcp/127.0.0.1/${REST_PORT:-8501}" || exit 1
printf 'GET /v1/models/%s HTTP/1.0\r\nHost: localhost\r\n\r\n' \
    "$MODEL_NAME" >&3
reply=$(timeout 3 cat <&3)
available='"state": *"AVAILABLE"'
[[ $reply =~ $available ]]
