# The pipeline in a container: `docker build -t world-models . && docker run --rm -it world-models smoke`
FROM python:3.11-slim-bookworm

# git: DVC and the record of the commit; make: the same commands as outside.
RUN apt-get update && apt-get install --yes --no-install-recommends git make && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 1000 wm
USER wm
# Where compose.yaml mounts volumes: they take their owner from here.
RUN mkdir -p /home/wm/mlartifacts /home/wm/world-models/.dvc/cache /home/wm/world-models/.wm
WORKDIR /home/wm/world-models

# Packages first: they change less often than the code.
RUN python -m venv /home/wm/venv
ENV PATH=/home/wm/venv/bin:$PATH PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY --chown=wm pyproject.toml constraints.txt LICENSE ./
COPY --chown=wm wm/__init__.py wm/
COPY --chown=wm flows/__init__.py flows/
COPY --chown=wm tools/__init__.py tools/packing.py tools/
RUN pip install --progress-bar off -c constraints.txt -e '.[pipeline,doom,servers]'

COPY --chown=wm . .

# `docker stop` ends the pipeline as Ctrl-C does.
STOPSIGNAL SIGINT
ENTRYPOINT ["python", "-m", "flows.pipeline"]
CMD ["car_racing"]
