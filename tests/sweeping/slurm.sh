#!/bin/bash
# A SLURM cluster of one node on this machine, for tests/sweeping/test_slurm.py: controller, node and, if asked, accounting.
#   tests/slurm.sh up FOLDER none|slurmdbd     tests/slurm.sh down FOLDER
# As root and without systemd. All it writes lies in FOLDER; /etc/slurm is not touched. Debian's packages:
#   apt-get install --no-install-recommends slurm-wlm munge slurmdbd mariadb-server
set -eu
command=$1 S=$2 accounting=${3:-none}
export SLURM_CONF=$S/slurm.conf

stop() {  # each by the process id that it wrote down
  for name in slurmd slurmctld slurmdbd mariadb munged; do
    [ -f "$S/$name.pid" ] || continue
    pid=$(cat "$S/$name.pid"); kill "$pid" 2>/dev/null || continue
    for _ in $(seq 50); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    kill -9 "$pid" 2>/dev/null || true
  done
}
if [ "$command" = down ]; then stop; exit; fi

await() {  # seconds, command: until it succeeds
  local seconds=$1; shift
  for _ in $(seq $((seconds * 5))); do timeout 5 "$@" >/dev/null 2>&1 && return; sleep 0.2; done
  echo "slurm.sh: not within $seconds s: $*" >&2; stop; exit 1
}

node=$(hostname -s)
install -d -m 0755 "$S" "$S/state" "$S/spool"
install -d -o munge -g munge -m 0755 "$S/munge"
dd if=/dev/urandom bs=1 count=128 of="$S/munge/key" status=none
chown munge "$S/munge/key"; chmod 400 "$S/munge/key"
socket=$S/munge/socket
su -s /bin/sh munge -c "/usr/sbin/munged --socket=$socket --key-file=$S/munge/key --pid-file=$S/munge/pid \
  --log-file=$S/munge/log --seed-file=$S/munge/seed --force" 2>/dev/null
cp "$S/munge/pid" "$S/munged.pid"

storage=accounting_storage/none
[ "$accounting" = none ] || storage=accounting_storage/slurmdbd
# cred_expire: how long a requeued job waits; other ports than those of a cluster that may be here
cat >"$S/slurm.conf" <<E
ClusterName=vitbench
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$socket,cred_expire=5
CryptoType=crypto/munge
StateSaveLocation=$S/state
SlurmdSpoolDir=$S/spool
SlurmctldPidFile=$S/slurmctld.pid
SlurmdPidFile=$S/slurmd.pid
SlurmctldLogFile=$S/slurmctld.log
SlurmdLogFile=$S/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=$storage
AccountingStorageHost=localhost
AccountingStoragePort=16819
AccountingStoragePass=$socket
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,batch_sched_delay=0
ReturnToService=2
MpiDefault=none
SwitchType=switch/none
KillWait=10
NodeName=$node NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=2000 State=UNKNOWN
PartitionName=debug Nodes=$node Default=YES MaxTime=INFINITE State=UP
E

if [ "$accounting" = slurmdbd ]; then
  install -d -o mysql -g mysql "$S/mysql"
  sql="mariadb --socket=$S/mysql/socket"
  mariadb-install-db --user=mysql --datadir="$S/mysql/data" --auth-root-authentication-method=normal >/dev/null 2>&1
  /usr/sbin/mariadbd --user=mysql --datadir="$S/mysql/data" --socket="$S/mysql/socket" --pid-file="$S/mysql/pid" \
    --skip-networking --innodb-buffer-pool-size=64M >"$S/mysql/log" 2>&1 &
  await 60 $sql -e 'select 1'
  cp "$S/mysql/pid" "$S/mariadb.pid"
  $sql -e "CREATE DATABASE slurm_acct_db; CREATE USER 'slurm'@'localhost' IDENTIFIED BY 'slurm'; GRANT ALL ON slurm_acct_db.* TO 'slurm'@'localhost'"
  cat >"$S/slurmdbd.conf" <<E
AuthType=auth/munge
AuthInfo=socket=$socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=16819
SlurmUser=root
LogFile=$S/slurmdbd.log
PidFile=$S/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
E
  chmod 600 "$S/slurmdbd.conf"
  MYSQL_UNIX_PORT=$S/mysql/socket /usr/sbin/slurmdbd
  await 60 sacctmgr -n show cluster
fi
/usr/sbin/slurmctld
await 60 scontrol ping
/usr/sbin/slurmd
await 60 bash -c '[ "$(sinfo -h -o %T)" = idle ]'
