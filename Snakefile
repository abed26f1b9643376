"""The batch: train fleets, run the notebooks, write the table. `make reproduce` runs it; so does any Snakemake executor
(for example `snakemake --executor slurm --jobs 20 --config profile=paper` with snakemake-executor-plugin-slurm installed).

Every job's declared output is a small record of what it made, never the results themselves: Snakemake deletes declared outputs before a job.
"""

from prefvlm_core.experiments import EXPERIMENTS, fleets, plan

PROFILE = config.get("profile", "quick")
RESULTS = config.get("results", "results")
DEVICE = config.get("device", "auto")
DONE = f"{RESULTS}/{PROFILE}/.done"
FLEETS = {experiment: list(fleets([run.config for run in plan(experiment, PROFILE)])) for experiment in EXPERIMENTS}
EXPERIMENT_OF = {fleet: experiment for experiment, names in FLEETS.items() for fleet in names}


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
    output:
        f"{DONE}/{{fleet}}.json",
    threads: 4
    params:
        experiment=lambda wildcards: EXPERIMENT_OF[wildcards.fleet],
        workers=lambda wildcards, threads: max(1, threads - 1),
    shell:
        "prefvlm experiment {params.experiment} --fleet {wildcards.fleet} --profile {PROFILE}"
        " --results {RESULTS:q} --device {DEVICE} --workers {params.workers}"


rule notebook:
    input:
        lambda wildcards: [f"{DONE}/{fleet}.json" for fleet in FLEETS[wildcards.notebook]],
        "notebooks/{notebook}.ipynb",
    output:
        f"{DONE}/{{notebook}}.json",
    shell:
        "prefvlm notebook {wildcards.notebook} --profile {PROFILE} --results {RESULTS:q}"


rule table:
    input:
        [f"{DONE}/{fleet}.json" for names in FLEETS.values() for fleet in names],
    output:
        f"{DONE}/table.json",
    shell:
        "prefvlm table --profile {PROFILE} --results {RESULTS:q}"
