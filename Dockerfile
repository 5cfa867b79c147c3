# One image for workers, flow runs and the command line. On a CUDA machine name the torch build that fits its
# driver: docker build --build-arg TORCH="torch==2.13.0+cu130 --index-url ..." .
FROM python:3.11-slim

ARG TORCH=""
ENV DGLBACKEND=pytorch PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1

# dgl links against OpenMP; tini hands signals on, so that a stopped run leaves a checkpoint.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 tini \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/gclflow
COPY requirements.lock pyproject.toml ./
# What a run needs, at the locked versions: the lock also holds what tests need. A layer of its own, which a
# change of the code alone leaves as it is.
RUN python -c 'import tomllib; \
    project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
    more = project["optional-dependencies"]; \
    print(*project["dependencies"], *more["s3"], *more["push"], "setuptools", sep="\n")' > needed.txt \
    && pip install --requirement needed.txt --constraint requirements.lock \
    && if [ -n "$TORCH" ]; then pip install $TORCH; fi
COPY README.md LICENSE prefect.yaml prefect.cluster.yaml ./
COPY flows flows
COPY tasks tasks
COPY gcl gcl
COPY data_contracts data_contracts
RUN pip install --no-deps --no-build-isolation .

# The store refuses folders that others may write: one user owns it, with a number that volumes can be given to.
RUN useradd --uid 10001 --create-home gclflow && mkdir /data && chown gclflow /data && chmod 700 /data
USER gclflow
WORKDIR /data
VOLUME /data

ENTRYPOINT ["tini", "--"]
CMD ["gclflow", "--help"]
