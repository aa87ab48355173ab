#!/usr/bin/env bash
# One tracking server for several people, on one Debian machine: MLflow on PostgreSQL, its artefacts and
# DVC's files in two S3 buckets. What a real deployment changes: shared_server.md beside this file.
#
#   shared_server.sh start|stop|status FOLDER      all that it makes and writes is below FOLDER
#   shared_server.sh remote FOLDER PROJECT         DVC's remote in a project, on this store
set -euo pipefail

verb=${1:-} folder=${2:-} project=${3:-}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
MLFLOW_PORT=${MLFLOW_PORT:-5010} S3_PORT=${S3_PORT:-5011} POSTGRES_PORT=${POSTGRES_PORT:-5012}
# A Python with the extra `shared` and moto[s3]; what `make` sets up has both.
PYTHON=${PYTHON:-$here/../../.venv/bin/python}
# The newest PostgreSQL of Debian's.
PG_BIN=${PG_BIN:-$(find /usr/lib/postgresql -maxdepth 2 -name bin 2>/dev/null | sort -V | tail -1 || true)}

die() { echo "shared_server: $*" >&2; exit 2; }

case $verb in start|stop|status|remote) ;; *) die "expected start, stop, status or remote (got '$verb')." ;; esac
[ -n "$folder" ] || die "name a folder: shared_server.sh $verb /srv/fieldlens"
[ "$verb" = start ] && mkdir -p "$folder"
[ -d "$folder" ] || die "$folder is not there. Run start first."
folder=$(cd "$folder" && pwd)
data=$folder/postgres/data

# The stand-in takes any key. A real store's come from a secret's store, never from a file in Git.
unset AWS_PROFILE AWS_SESSION_TOKEN AWS_ENDPOINT_URL_S3
export AWS_ENDPOINT_URL=http://127.0.0.1:$S3_PORT AWS_DEFAULT_REGION=us-east-1
export AWS_ACCESS_KEY_ID=fieldlens AWS_SECRET_ACCESS_KEY=fieldlens
export DO_NOT_TRACK=1 MLFLOW_DISABLE_TELEMETRY=true DVC_NO_ANALYTICS=1
# Seven processes for language models.
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false

# -- PostgreSQL ------------------------------------------------------------------------------------
# It refuses to run as root, who therefore goes on as the user that Debian's package makes.
as_owner() {
  if [ "$(id -u)" = 0 ]; then
    (cd / && setpriv --reuid=postgres --regid=postgres --init-groups env HOME=/ "$@")
  else
    "$@"
  fi
}

postgres_runs() { [ -d "$data" ] && as_owner "$PG_BIN/pg_ctl" -D "$data" status >/dev/null 2>&1; }

start_postgres() {
  postgres_runs && return
  must_be_free "$POSTGRES_PORT" POSTGRES_PORT
  mkdir -p "$folder/postgres"
  [ "$(id -u)" != 0 ] || chown postgres: "$folder/postgres"
  as_owner test -x "$folder/postgres" \
    || die "the user postgres may not enter $folder. Name a folder whose every part others may enter, like /srv/fieldlens."
  if [ ! -d "$data" ]; then
    # Only the owner of the cluster, by a socket in its own folder, without a password; others by one.
    as_owner rm -rf "$data.new"
    as_owner "$PG_BIN/initdb" -D "$data.new" --encoding=UTF8 --locale=C.UTF-8 --data-checksums \
      --auth-local=peer --auth-host=scram-sha-256 >/dev/null
    as_owner mv "$data.new" "$data"
  fi
  as_owner "$PG_BIN/pg_ctl" -D "$data" -s -w -l "$folder/postgres/log" \
    -o "-h 127.0.0.1 -p $POSTGRES_PORT -k $data" start </dev/null \
    || die "PostgreSQL does not start: look at $folder/postgres/log"
  # Where libpq finds the password, so that it stands on no command line.
  if [ ! -s "$folder/pgpass" ]; then
    (umask 077; echo "127.0.0.1:*:*:fieldlens:$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')" >"$folder/pgpass")
  fi
  as_owner "$PG_BIN/psql" -X -q -v ON_ERROR_STOP=1 -h "$data" -p "$POSTGRES_PORT" -d postgres <<SQL
SELECT 'CREATE ROLE fieldlens LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'fieldlens') \gexec
ALTER ROLE fieldlens PASSWORD '$(cut -d: -f5 "$folder/pgpass")';
SELECT 'CREATE DATABASE mlflow OWNER fieldlens' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'mlflow') \gexec
SQL
}

# -- the S3 stand-in and MLflow --------------------------------------------------------------------
# When a process began, in clock ticks since the machine did: its id alone may be another's by now.
began() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | awk '$1 != "Z" { print $20 }'; }

runs() {  # name
  local pid since
  [ -s "$folder/$1.pid" ] && read -r pid since <"$folder/$1.pid" && [ "$(began "$pid")" = "$since" ]
}

start_service() {  # name port variable command…
  local name=$1 port=$2 variable=$3
  shift 3
  runs "$name" && return
  must_be_free "$port" "$variable"
  # A group of its own, so that its workers end with it.
  setsid "$@" >>"$folder/$name.log" 2>&1 </dev/null &
  echo "$! $(began $!)" >"$folder/$name.pid"
  for _ in $(seq 300); do
    answers "$port" && return
    runs "$name" || break
    sleep 0.3
  done
  tail -n 5 "$folder/$name.log" >&2
  die "$name does not start: look at $folder/$name.log"
}

stop_service() {  # name
  local pid
  if runs "$1"; then
    read -r pid _ <"$folder/$1.pid"
    kill -TERM -- "-$pid"
    for _ in $(seq 60); do runs "$1" || break; sleep 0.3; done
    # Workers that have outlived it.
    kill -KILL -- "-$pid" 2>/dev/null || true
  fi
  rm -f "$folder/$1.pid"
}

answers() { (: <>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

must_be_free() {  # port variable
  ! answers "$1" || die "port $1 of 127.0.0.1 is taken: name another one, $2=…"
}

# -- verbs -----------------------------------------------------------------------------------------
start() {
  [ -x "$PG_BIN/initdb" ] || die "PostgreSQL is not installed: apt-get install postgresql"
  [ -x "$PYTHON" ] && "$PYTHON" -c 'import importlib.util, sys
sys.exit(not all(map(importlib.util.find_spec, ["boto3", "flask_cors", "mlflow", "moto", "psycopg2"])))' \
    || die "$PYTHON is none, or lacks a package: pip install 'fieldlens[train,shared]' 'moto[s3]', or name another by PYTHON=…"
  # What has been started does not stay where the rest does not come.
  trap 'code=$?; [ $code = 0 ] || stop; exit $code' EXIT
  start_postgres
  start_service s3 "$S3_PORT" S3_PORT "$PYTHON" -m moto.server -H 127.0.0.1 -p "$S3_PORT"
  "$PYTHON" -c 'import boto3, sys
for bucket in sys.argv[1:]: boto3.client("s3").create_bucket(Bucket=bucket)' fieldlens-mlflow fieldlens-dvc
  PGPASSFILE=$folder/pgpass start_service mlflow "$MLFLOW_PORT" MLFLOW_PORT \
    "$PYTHON" -m mlflow server --host 127.0.0.1 --port "$MLFLOW_PORT" --workers 2 \
    --backend-store-uri "postgresql+psycopg2://fieldlens@127.0.0.1:$POSTGRES_PORT/mlflow" \
    --artifacts-destination s3://fieldlens-mlflow
  status
}

stop() {
  stop_service mlflow
  stop_service s3
  ! postgres_runs || as_owner "$PG_BIN/pg_ctl" -D "$data" -s -m fast -w stop
}

status() {
  local code=0
  line() { if "${@:3}"; then echo "$1 runs at 127.0.0.1:$2"; else echo "$1 does not run"; code=3; fi; }
  line PostgreSQL "$POSTGRES_PORT" postgres_runs
  line S3 "$S3_PORT" runs s3
  line MLflow "$MLFLOW_PORT" runs mlflow
  [ $code != 0 ] || echo "export MLFLOW_TRACKING_URI=http://127.0.0.1:$MLFLOW_PORT"
  return $code
}

remote() {
  cd "${project:-/dev/null}" 2>/dev/null || die "remote: expected a project's folder (got '$project')."
  dvc() { "$PYTHON" -m dvc "$@"; }
  # For all who clone the project; who they are stays with each, in .dvc/config.local.
  dvc remote add --quiet --force --default shared s3://fieldlens-dvc
  dvc remote modify shared endpointurl "$AWS_ENDPOINT_URL"
  dvc remote modify --local shared access_key_id "$AWS_ACCESS_KEY_ID"
  dvc remote modify --local shared secret_access_key "$AWS_SECRET_ACCESS_KEY"
}

"$verb"
