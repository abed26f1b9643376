# What a batch needs beside a checkout, for clusters and clouds (docs/howto/cluster.md): docker build -t prefvlm .
# apptainer.def is the same for Apptainer.
FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends git gcc libc6-dev python3-dev python3-venv libegl1 libegl-mesa0 libgl1-mesa-dri libopengl0 \
    && rm -rf /var/lib/apt/lists/*
COPY pyproject.toml README.md LICENSE /opt/prefvlm/
COPY prefvlm_core /opt/prefvlm/prefvlm_core
RUN python3 -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir torch==2.13.0 -e '/opt/prefvlm[batch,openclip,dmc]'
ENV PATH=/opt/venv/bin:$PATH
CMD ["prefvlm", "--help"]
