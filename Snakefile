"""The batch: train fleets, run the notebooks, write the table. `make reproduce` and `prefvlm reproduce` run it here, and

    prefvlm reproduce --profile paper --executor slurm --device cuda
    snakemake --workflow-profile profiles/slurm --config profile=paper device=cuda

on a cluster (docs/howto/cluster.md). What `--config` takes are the fields of `Jobs`. Jobs call the Python that reads this
file, so that no virtual environment needs to be activated.

Every job's declared output is a small record of what it made, never the results themselves: Snakemake deletes declared outputs before a job.
"""

import sys
from pathlib import Path

from prefvlm_core.experiments.jobs import DRAWING, Jobs

JOBS = Jobs.of(config)
PYTHON = sys.executable
DONE = f"{JOBS.results}/{JOBS.profile}/.done"
JOBS.check_weights([fleet for fleet in JOBS.trained if not Path(f"{DONE}/{fleet}.json").exists()])


def job(command):
    """The shell command of a job, whose output also goes to its log; one that is killed, as for its memory, is tried once more."""
    return f"run() {{{{ {command} 2>&1 | tee -a {{log:q}}; }}}}; : > {{log:q}}; run || {{{{ [ $? -gt 128 ] && run; }}}}"


wildcard_constraints:
    fleet="fleet-[0-9a-f]{8}",
    notebook="[0-9]{2}_[a-z_]+",


localrules:
    all,


rule all:
    input:
        expand(f"{DONE}/{{notebook}}.json", notebook=JOBS.drawn),
        [] if JOBS.notebooks else f"{DONE}/table.json",


rule fleet:
    input:
        lambda wildcards: [f"{DONE}/{fleet}.json" for fleet in JOBS.before(wildcards.fleet)],
    output:
        f"{DONE}/{{fleet}}.json",
    threads: lambda wildcards: JOBS.resources(wildcards.fleet).cpus
    resources:
        runtime=lambda wildcards, attempt: JOBS.resources(wildcards.fleet, attempt).minutes,
        mem_mb=lambda wildcards, attempt: JOBS.resources(wildcards.fleet, attempt).megabytes,
        gpu=lambda wildcards: JOBS.resources(wildcards.fleet).gpus,
    params:
        command=lambda wildcards, threads: JOBS.command(wildcards.fleet, threads),
    log:
        f"{DONE}/{{fleet}}.log",
    shell:
        job("{PYTHON:q} -m prefvlm_core {params.command}")


rule notebook:
    input:
        lambda wildcards: [f"{DONE}/{fleet}.json" for fleet in JOBS.before(wildcards.notebook)],
        "notebooks/{notebook}.ipynb",
    output:
        f"{DONE}/{{notebook}}.json",
    resources:
        runtime=lambda wildcards, attempt: DRAWING.minutes * attempt,
        mem_mb=lambda wildcards, attempt: DRAWING.megabytes * attempt,
    log:
        f"{DONE}/{{notebook}}.log",
    shell:
        job("{PYTHON:q} -m prefvlm_core notebook {wildcards.notebook} --profile {JOBS.profile} --results {JOBS.results:q}")


rule table:
    input:
        [f"{DONE}/{fleet}.json" for fleet in JOBS.fleets],
    output:
        f"{DONE}/table.json",
    resources:
        runtime=lambda wildcards, attempt: DRAWING.minutes * attempt,
        mem_mb=lambda wildcards, attempt: DRAWING.megabytes * attempt,
    log:
        f"{DONE}/table.log",
    shell:
        job("{PYTHON:q} -m prefvlm_core table --profile {JOBS.profile} --results {JOBS.results:q}")
