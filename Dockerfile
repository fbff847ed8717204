# vitbench in a container, with the pinned packages of requirements/newest.txt. PyTorch from PyPI computes on a CPU and, with
# NVIDIA's container toolkit, on a GPU.
#
#   docker build -t vitbench .
#   docker run --rm -u "$(id -u):$(id -g)" -v "$PWD:/data" vitbench train model=vit pe=learned
#   docker run --rm -u "$(id -u):$(id -g)" -v "$PWD:/data" vitbench advise data.root=pets
#   docker run --rm -u "$(id -u):$(id -g)" --gpus all -v "$PWD:/data" vitbench train model=vit
FROM python:3.13-slim

WORKDIR /opt/vitbench
COPY requirements/newest.txt requirements/newest.txt
RUN python3 -m venv /opt/venv \
 && /opt/venv/bin/pip install --no-cache-dir --require-hashes -r requirements/newest.txt
COPY pyproject.toml README.md LICENSE ./
COPY vitbench vitbench
COPY hydra_plugins hydra_plugins
COPY conf conf
COPY experiments experiments
RUN /opt/venv/bin/pip install --no-cache-dir --no-deps .

# Decoded images are kept in the folder that is mounted, beside the runs, so that the next container finds them.
ENV VITBENCH_CACHE=/data/.vitbench HOME=/tmp
WORKDIR /data
ENTRYPOINT ["/opt/venv/bin/vitbench"]
CMD ["--help"]
