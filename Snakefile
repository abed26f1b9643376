"""The batch: train fleets, run the notebooks, write the table. `make reproduce` runs it; so does any Snakemake executor
(for example `snakemake --executor slurm --jobs 20 --config profile=paper` with snakemake-executor-plugin-slurm installed).

Every job's declared output is a small record of what it made, never the results themselves: Snakemake deletes declared outputs before a job.
"""

import torch

from prefvlm_core.experiments.plan import fleets_before, fleets_of, profile_fleets
from prefvlm_core.experiments.grids import EXPERIMENTS

PROFILE = config.get("profile", "quick")
RESULTS = config.get("results", "results")
DEVICE = config.get("device", "auto")
DONE = f"{RESULTS}/{PROFILE}/.done"
CUDA = DEVICE == "cuda" or (DEVICE == "auto" and torch.cuda.is_available())
FLEETS = list(profile_fleets(PROFILE))


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
        expand(f"{DONE}/{{notebook}}.json", notebook=EXPERIMENTS),
        f"{DONE}/table.json",


rule fleet:
    input:
        lambda wildcards: [f"{DONE}/{fleet}.json" for fleet in fleets_before(wildcards.fleet, PROFILE)],
    output:
        f"{DONE}/{{fleet}}.json",
    # On a CPU the learner is the slower part and runs best on one thread, so fleets run side by side, one per core; a GPU
    # learns faster than one process can step environments.
    threads: 4 if CUDA else 1
    params:
        workers=lambda wildcards, threads: max(1, threads - 1),
    log:
        f"{DONE}/{{fleet}}.log",
    shell:
        job(
            "prefvlm fleet {wildcards.fleet} --profile {PROFILE}"
            " --results {RESULTS:q} --device {DEVICE} --workers {params.workers}"
        )


rule notebook:
    input:
        lambda wildcards: [f"{DONE}/{fleet}.json" for fleet in fleets_of(wildcards.notebook, PROFILE)],
        "notebooks/{notebook}.ipynb",
    output:
        f"{DONE}/{{notebook}}.json",
    log:
        f"{DONE}/{{notebook}}.log",
    shell:
        job("prefvlm notebook {wildcards.notebook} --profile {PROFILE} --results {RESULTS:q}")


rule table:
    input:
        [f"{DONE}/{fleet}.json" for fleet in FLEETS],
    output:
        f"{DONE}/table.json",
    log:
        f"{DONE}/table.log",
    shell:
        job("prefvlm table --profile {PROFILE} --results {RESULTS:q}")
