# dtsim as an ordinary user in a container:
#
#   docker build --tag dtsim .
#   docker run --rm --volume "$PWD/dtsim-data:/data" dtsim run scheme=proposed mu=20
#
# With a GPU, give the index of the CUDA build of torch that fits its driver, and --gpus all to `docker run`:
#
#   docker build --tag dtsim-cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .
FROM python:3.11-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

WORKDIR /opt/dtsim
# torch first, in a layer of its own: it is large, and changes seldom.
COPY constraints.txt ./
RUN pip install --no-cache-dir --index-url "$TORCH_INDEX" --constraint constraints.txt torch torchvision
COPY pyproject.toml README.md LICENSE ./
COPY conf conf
COPY dtsim dtsim
RUN pip install --no-cache-dir --constraint constraints.txt '.[parquet]'

RUN useradd --create-home dtsim && mkdir /data && chown dtsim:dtsim /data
USER dtsim
WORKDIR /data
# Data, base models, policies and results stay in the volume; one thread a process, as everywhere.
ENV DTSIM_CACHE=/data/cache OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
VOLUME /data
ENTRYPOINT ["dtsim"]
CMD ["--help"]
