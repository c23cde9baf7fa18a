#!/usr/bin/env bash
# A SLURM of one machine, for tests: munged, slurmctld and slurmd on loopback, as root, all files in one folder.
#
#   tests/end_to_end/slurm_cluster.sh start DIR [CPUS]     then: export SLURM_CONF=DIR/slurm.conf, and sbatch, srun, squeue work
#   tests/end_to_end/slurm_cluster.sh stop DIR
#
# Needs Debian's slurm-wlm and munge (apt-get install slurm-wlm munge); 3 where they are not, or this is not root.
set -euo pipefail
action=$1 dir=$(realpath -m "$2") cpus=${3:-2}
conf=$dir/slurm.conf

stop() {
    for daemon in slurmd slurmctld munged; do
        if [ -s "$dir/$daemon.pid" ]; then kill "$(cat "$dir/$daemon.pid")" 2>/dev/null || true; fi
    done
}

if [ "$action" = stop ]; then
    stop
    exit 0
fi
for tool in munged slurmctld slurmd; do
    command -v $tool >/dev/null || { echo "$tool is not installed: apt-get install slurm-wlm munge"; exit 3; }
done
[ "$(id -u)" = 0 ] || { echo "starting munged, slurmctld and slurmd as here needs root"; exit 3; }

port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
mkdir -p "$dir"/{state,spool,munge}
chmod 711 "$dir" && chmod 700 "$dir/munge"
head -c 128 /dev/urandom >"$dir/munge/key" && chmod 400 "$dir/munge/key"
host=$(hostname -s)

cat >"$conf" <<EOF
ClusterName=kd
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$(port)
SlurmdPort=$(port)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge/socket,cred_expire=5
CredType=cred/munge
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
KillWait=5
JobRequeue=1
ReturnToService=2
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cpus State=UNKNOWN
PartitionName=work Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:2
EOF

munged --key-file="$dir/munge/key" --socket="$dir/munge/socket" --pid-file="$dir/munged.pid" \
    --log-file="$dir/munge/log" --seed-file="$dir/munge/seed" --num-threads=2 --force
export SLURM_CONF=$conf
slurmctld -c -f "$conf"
slurmd -c -f "$conf"
for _ in $(seq 60); do
    if sinfo --noheader --format=%t 2>/dev/null | grep -qE '^(idle|mix|alloc)'; then exit 0; fi
    sleep 0.5
done
echo "no node came up within 30 s; see $dir/slurmctld.log and $dir/slurmd.log"
tail -5 "$dir"/slurm*.log
stop
exit 1
