#!/usr/bin/env bash
# A SLURM cluster of two nodes on this machine, for as long as a command runs; needs no root.
#   tools/slurm_on_localhost.sh COMMAND ...
# The command finds it by SLURM_CONF and PATH, in a folder that holds the logs too and is removed in the end. Install
# first, on Debian and Ubuntu: sudo apt-get install slurmctld slurmd slurm-client munge
set -euo pipefail
[ $# -gt 0 ] || { sed -n '2,5p' "$0" >&2; exit 2; }
PATH="$PATH:/usr/sbin"
folder=$(mktemp -d)
chmod 755 "$folder"
daemons=()
stop() {
    export SLURM_CONF="$folder/slurm.conf"  # never another cluster's
    scancel --user="$(id -un)" 2>/dev/null || true  # jobs outlive the daemons
    for _ in $(seq 50); do
        [ -z "$(squeue --noheader 2>/dev/null)" ] && break
        sleep 0.2
    done
    for pid in "${daemons[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${daemons[@]}"; do wait "$pid" 2>/dev/null || true; done
    rm -rf "$folder"
}
trap stop EXIT

read -r controller first second < <(python3 -c '
import socket
sockets = [socket.create_server(("", 0)) for _ in range(3)]
print(*(each.getsockname()[1] for each in sockets))')
head -c 1024 /dev/urandom >"$folder/munge.key"
chmod 400 "$folder/munge.key"
mkdir "$folder/bin" "$folder/state" "$folder/n1" "$folder/n2"
# Snakemake's plugin takes SLURM_CONF away from the srun in a job, so this one brings its own.
printf '#!/bin/sh\nSLURM_CONF=%s exec %s "$@"\n' "$folder/slurm.conf" "$(command -v srun)" >"$folder/bin/srun"
chmod +x "$folder/bin/srun"
cat >"$folder/slurm.conf" <<CONF
ClusterName=localhost
SlurmctldHost=localhost
SlurmctldPort=$controller
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$folder/munge.socket
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=2
JobRequeue=0
KillWait=5
MinJobAge=3600
ReturnToService=2
NodeName=n1 NodeHostname=localhost Port=$first CPUs=2 RealMemory=16000
NodeName=n2 NodeHostname=localhost Port=$second CPUs=2 RealMemory=16000
PartitionName=local Nodes=ALL Default=YES DefaultTime=10 MaxTime=INFINITE DefMemPerCPU=2000
CONF
export SLURM_CONF="$folder/slurm.conf" PATH="$folder/bin:$PATH"

munged --foreground --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" \
    --pid-file="$folder/munged.pid" --log-file="$folder/munged.log" --seed-file="$folder/munged.seed" >/dev/null 2>&1 &
daemons+=($!)
until [ -S "$folder/munge.socket" ]; do sleep 0.1; done
slurmctld -D -i >/dev/null 2>&1 &
daemons+=($!)
for node in n1 n2; do
    slurmd -D -N "$node" >/dev/null 2>&1 &
    daemons+=($!)
done
for _ in $(seq 100); do
    [ "$(sinfo --noheader --Node --states=idle 2>/dev/null | wc -l)" = 2 ] && break
    sleep 0.3
done
sinfo --noheader --Node --states=idle | grep -q n2 || { tail -n 5 "$folder"/*.log >&2; exit 1; }
"$@"
