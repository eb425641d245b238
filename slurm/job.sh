#!/bin/bash
# @command
# The training saves and exits with 75 when it is told to stop (USR1 ahead of the time limit and at a preemption); this
# script then puts the job back into the queue, and it goes on in the same folder. How a job ends: docs/slurm.md.
# @directives

# @members

job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}
job=${job:-$SLURM_JOB_ID}
logs=$folder/slurm

newest() { # the newest checkpoint's name, a number of twelve digits
  find "$folder/checkpoints" -maxdepth 1 -name '[0-9]*' -printf '%f\n' 2>/dev/null | sort | tail -n 1
}

note() { # event [status]: a line for `experiments.launch status=`
  local form='{"event": "%s", "job": "%s", "restart": %d, "status": %s, "checkpoint": "%s", "node": "%s", "time": "%(%FT%T%z)T"}\n'
  printf "$form" "$1" "$job" "${SLURM_RESTART_COUNT:-0}" "${2:-null}" "$(newest)" "$SLURMD_NODENAME" -1 \
    >>"$logs/attempts.jsonl"
}

if grep -qs "\"event\": \"done\", \"job\": \"$job\"" "$logs/attempts.jsonl"; then
  echo "job $job: this run is done; not started again"
  exit 0
fi

# @environment

# A run that lies here goes on. Its config is the first that it writes, and it begins anew where it has no checkpoint yet.
[[ -e $folder/config.yaml ]] && arguments=("resume=$folder" "${changes[@]}")

# What each process does. It holds a lock: one on a node that was lost may still be at work on this run, and is waited
# for. The first that fails writes down its status: srun's would be that of another, which Slurm then ends by TERM.
process='
trap : INT USR1 TERM # Slurm sends them to the training as well
exec 9>>"$0$SLURM_PROCID"
flock --timeout 600 --conflict-exit-code 74 9 # others of its statuses: a file system without locks
status=$?
((status == 74 || status > 128)) && exit "$status"
"$@"
status=$?
case $status in
  0 | 75) exit 0 ;;
  138 | 143) ;; # USR1 or TERM, before the training listens
  *) echo "$status" >>"${0%lock}failed-$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}" ;;
esac
exit "$status"'

log=$logs/$job-rank0.log
before=$(stat --format=%s "$log" 2>/dev/null)
note started
trap 'note terminated' EXIT # by scancel, a requeue or a time-out; don't trap TERM, or this shell would live on
srun --kill-on-bad-exit=1 --open-mode=append --output="$logs/$job-rank%t.log" \
  bash -c "$process" "$logs/lock" "${python[@]}" -m experiments.train "${arguments[@]}"
status=$?
trap - EXIT
failed=$logs/failed-$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}
# The first one's, or rather that of the first which has failed itself: 69 says that another did.
[[ -s $failed ]] && status=$(grep -vxm1 69 "$failed" || head -n 1 "$failed")
rm -f "$failed"

# When a node is lost srun may say 0, so the training's own last line decides.
if ((status == 0)); then
  case $(tail -c "+$((before + 1))" "$log" | grep -aoE '^(finished|stopped) at ' | tail -n 1) in
    finished*) ;;
    stopped*) status=75 ;;
    *)
      echo "job $job: ended before the training did: a node was lost, or the disk is full"
      status=1
      ;;
  esac
fi

case $status in
  0)
    note done 0
    exit 0
    ;;
  75 | 138 | 143) # saved; or USR1 or TERM came before the training listened, and there was nothing to save
    note stopped "$status"
    if (($(grep "\"stopped\", \"job\": \"$job\"" "$logs/attempts.jsonl" | tail -n 3 | grep -c "\"checkpoint\": \"$(newest)\"") == 3)); then
      echo "job $job: stopped three times without a new checkpoint, so not started again: is time= too short?"
    elif scontrol requeue "$SLURM_JOB_ID"; then
      sleep 600 # Slurm ends this shell
    fi
    ;;
esac
note failed "$status"
exit "$status"
