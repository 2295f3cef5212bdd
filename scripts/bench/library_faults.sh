#!/usr/bin/env bash
# Makes every write, sync and rename of `smoa adapter add|rm|gc|optimize|..` fail in turn and looks at what is left.
#
#   scripts/bench/library_faults.sh [--smoa FILE] [--errors "ENOSPC EIO"] [--ops "add replace rm gc prune undo .."]
#                                   [--calls "write pwrite64 fsync fdatasync ftruncate rename unlink"]
#                                   [--model FILE]   `merge` instead: an optimization that is judged on this model
#
# For each operation and each system call that changes files, the N-th call fails with the error, N = 1, 2, .. until the
# operation makes no more of them (strace). After each the library must be sound (`verify`), and be as before or as
# after the operation, never between; with exit code 0, as after. Then the same on a disk that is full, where tmpfs can
# be mounted. Prints a table; exit code 1 when anything was otherwise. Needs strace; a minute or two, with --model some more.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR/.. source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
smoa=$SMOA_ROOT/target/release/smoa
errors="ENOSPC EIO"
ops="add replace examples rm restore rename tag gc prune undo"
calls="write pwrite64 fsync fdatasync ftruncate rename unlink"
model=
while (($#)); do
  case $1 in
    -h | --help)
      sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    --smoa) smoa=$2 ;;
    --errors) errors=$2 ;;
    --ops) ops=$2 ;;
    --calls) calls=$2 ;;
    --model) model=$2 ops="merge" ;;
    *) die "unknown argument $1" ;;
  esac
  shift 2
done
[[ -x $smoa ]] || die "$smoa is not there; build it with scripts/run.sh, or give --smoa FILE"
has strace || die "strace is not there"
corpus=$SMOA_ROOT/tests/corpus/peft
base=$corpus/base.gguf
work=$(mktemp -d "${TMPDIR:-/dev/shm}/smoa-faults.XXXXXX")
mounted=
cleanup() {
  [[ -z $mounted ]] || umount "$mounted" 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT
export HOME=$work
lib=$work/library

adapter() { "$smoa" adapter "$@" --library "$lib"; }

# The arguments of an operation.
operation() {
  case $1 in
    add) echo "add -m $base $corpus/rslora" ;;
    replace) echo "add -m $base $corpus/dora --name lora --on-conflict replace" ;;
    examples) echo "from-examples $work/examples.jsonl -m $base" ;;
    rm) echo "rm lora" ;;
    restore) echo "restore gone" ;;
    rename) echo "rename lora renamed" ;;
    tag) echo "tag lora --tag new" ;;
    gc) echo "gc" ;;
    prune) echo "optimize -m $base --no-merge --min-age 0 --apply" ;;
    undo) echo "optimize --undo 1" ;;
    merge) echo "optimize -m $model -t 2 -c 512 --no-prune --prompts $work/prompts --max-divergence 0.1 --apply" ;;
    *) die "unknown operation $1" ;;
  esac
}

# Names, digests, tags, what can be restored and what was done, one line each.
state() {
  adapter optimize --journal
  for removed in "" --removed; do
    # shellcheck disable=SC2086
    adapter ls $removed --json | sed -E "s/^/$removed/; s/\"added\":[0-9]+,?//"
  done
}

fresh() {
  rm -rf "$lib"
  cp -a "$work/pristine" "$lib"
}

echo '["question", "answer"]' >"$work/examples.jsonl"
adapter add -m "$base" "$corpus/lora" "$corpus/loha" "$corpus/ia3" --tag keep >/dev/null
adapter add -m "$base" "$corpus/vera" --name gone >/dev/null
adapter rm gone 2>/dev/null
# One that an optimization removed, one that it may remove.
adapter add -m "$base" "$corpus/rslora_patterns" >/dev/null
read -ra args <<<"$(operation prune)"
adapter "${args[@]}" >/dev/null 2>&1
adapter add -m "$base" "$corpus/lokr_both" >/dev/null
if [[ -n $model ]]; then
  # An adapter and one that is nearly the same.
  adapter add -m "$model" "$SMOA_ROOT/models/adapters/sql.gguf" "$SMOA_ROOT/models/adapters/banking.gguf" >/dev/null
  adapter merge sql banking --weights 1,0.02 -m "$model" --name twin >/dev/null
  printf '%s\n' "How many cards are lost?" "Tell me of the sea" >"$work/prompts"
fi
cp -a "$lib" "$work/pristine"
before=$(state)

bad=0
runs=0
# judge CODE AFTER WHAT: after an operation that was disturbed; counts into codes, old and new.
judge() {
  local now
  now=$(state 2>&1) || now="unreadable: $now"
  runs=$((runs + 1))
  codes[$1]=$((${codes[$1]:-0} + 1))
  if [[ $now == "$2" ]]; then
    new=$((new + 1))
  elif [[ $now == "$before" && $1 != 0 ]]; then
    old=$((old + 1))
  else
    bad=$((bad + 1))
    say "$3: exit $1, and the library is neither as before nor as after:"$'\n'"$now"
  fi
  if (($1 > 128)); then
    bad=$((bad + 1))
    say "$3: ended by a signal ($1)"
  fi
  if ! adapter verify >"$work/verify" 2>&1; then
    bad=$((bad + 1))
    say "$3: exit $1, and verify says:"$'\n'"$(<"$work/verify")"
  fi
  # Whoever writes next sweeps up, and goes on.
  if ! adapter add -m "$base" "$corpus/lokr" --name next >"$work/next" 2>&1; then
    bad=$((bad + 1))
    say "$3: the next writer fails: $(<"$work/next")"
  fi
}

printf '%-9s %-10s %-7s %6s  %-22s %6s %6s\n' operation call error faults "exit codes" before after
for op in $ops; do
  read -ra args <<<"$(operation "$op")"
  fresh
  adapter "${args[@]}" >/dev/null 2>&1 || die "$op fails undisturbed"
  after=$(state)
  for call in $calls; do
    for error in $errors; do
      declare -A codes=()
      old=0 new=0 n=0
      while :; do
        fresh
        code=0
        strace -f -qq -o "$work/trace" -e "trace=$call" -e "inject=$call:error=$error:when=$((n + 1))" \
          "$smoa" adapter "${args[@]}" --library "$lib" >/dev/null 2>"$work/said" || code=$?
        grep -q INJECTED "$work/trace" || break
        n=$((n + 1))
        judge "$code" "$after" "$op, $call number $n: $error"
        ((n < 500)) || die "$op: no end of $call"
      done
      if ((n > 0)); then
        list=$(for code in "${!codes[@]}"; do echo "$code:${codes[$code]}"; done | sort -n | tr '\n' ' ')
        printf '%-9s %-10s %-7s %6d  %-22s %6d %6d\n' "$op" "$call" "$error" "$n" "$list" "$old" "$new"
      fi
      unset codes
    done
  done
done

# A full disk: so much room that only a part fits.
if mkdir "$work/small" && mount -t tmpfs -o size=1m tmpfs "$work/small" 2>/dev/null; then
  mounted=$work/small
  declare -A codes=()
  old=0 new=0 n=0
  lib=$work/small/library
  cp -a "$work/pristine" "$lib"
  free=$(df --output=avail -k "$work/small" | tail -1)
  op=add
  read -ra args <<<"$(operation "$op")"
  rm -rf "$lib"
  cp -a "$work/pristine" "$lib"
  adapter "${args[@]}" >/dev/null 2>&1 || die "$op fails on an empty disk"
  after=$(state)
  for ((left = 0; left <= 200; left += 8)); do
    rm -rf "$lib" "$work/small/ballast"
    cp -a "$work/pristine" "$lib"
    head -c "$(((free - left) * 1024))" /dev/zero >"$work/small/ballast"
    code=0
    adapter "${args[@]}" >/dev/null 2>"$work/said" || code=$?
    rm -f "$work/small/ballast"
    n=$((n + 1))
    judge "$code" "$after" "$op with $left KiB left: $(<"$work/said")"
  done
  list=$(for code in "${!codes[@]}"; do echo "$code:${codes[$code]}"; done | sort -n | tr '\n' ' ')
  printf '%-9s %-10s %-7s %6d  %-22s %6d %6d\n' "$op" "full disk" - "$n" "$list" "$old" "$new"
else
  say "tmpfs cannot be mounted here: the full disk was left out (ENOSPC above is the same error, call by call)"
fi
echo "$runs faults, $bad wrong"
((bad == 0))
