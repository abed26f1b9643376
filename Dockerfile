# Everything that a batch needs, for clusters and clouds (docs/howto/cluster.md): docker build -t prefvlm .
# apptainer.def is the same for Apptainer.
FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-venv libegl1 libegl-mesa0 libgl1-mesa-dri \
    && rm -rf /var/lib/apt/lists/*
COPY . /opt/prefvlm
RUN python3 -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir torch==2.13.0 \
    && /opt/venv/bin/pip install --no-cache-dir -e '/opt/prefvlm[batch,openclip]'
ENV PATH=/opt/venv/bin:$PATH
CMD ["prefvlm", "--help"]
