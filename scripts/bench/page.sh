#!/usr/bin/env bash
# Opens the page of `smoa serve` in headless Chromium: chat with streaming, routes, adapters, dashboard, dark and light.
# Checks one by one and leaves pictures behind.
#
#   scripts/bench/page.sh [MODEL]
#
# needs: chromium, node and npm (Debian: apt-get install chromium nodejs npm); playwright-core is fetched by npm.
# Environment: SMOA_PAGE_OUT=FOLDER for the pictures (default target/page); SMOA_PAGE_README=FILE writes the README's
# picture there; SMOA_BIN=PROGRAM takes a program that is built; see scripts/lib.sh for the rest.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR/.. source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
case ${1:-} in
  -h | --help)
    sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    exit 0
    ;;
esac
given=${SMOA_PAGE_PROGRAM:-}
if [[ -z $given ]]; then
  need_tools
  [[ -n ${1:-} ]] || fetch_model
  build_release
  given=$SMOA_BIN
fi
model=${1:-$SMOA_DEFAULT_MODEL}
out=${SMOA_PAGE_OUT:-$SMOA_ROOT/target/page}
mkdir -p "$out"
out=$(cd "$out" && pwd -P)
cp "$SMOA_ROOT"/scripts/bench/page/* "$out/"
(cd "$out" && npm ci --no-audit --no-fund --loglevel=error)
work=$(mktemp -d)
server=
finish() {
  [[ -z $server ]] || kill "$server" 2>/dev/null || true
  wait 2>/dev/null || true
  rm -rf "$work"
}
trap finish EXIT

# adapter NAME DESCRIPTION TAGS, with lines of examples on standard input
adapter() {
  cat >"$work/$1.jsonl"
  local tags=()
  for tag in $3; do tags+=(--tag "$tag"); done
  "$given" adapter from-examples "$work/$1.jsonl" --name "$1" --description "$2" "${tags[@]}" \
    -m "$model" --library "$work/library" >/dev/null
}
adapter card-arrival "Answers customers of a bank who wait for a new card" "banking support" <<'X'
["When will my new card arrive?", "Cards take three to five working days after you order them."]
["I have not received my card yet", "Please wait five working days; after that we send a new one."]
X
adapter refund-status "Tells customers of a bank where a refund is" "banking support" <<'X'
["Where is my refund?", "Refunds are on your account two days after the shop sends them."]
["The shop has not paid me back", "Ask the shop for the date of the refund; we need two days after it."]
X
adapter recipes "Short recipes and answers about cooking" "kitchen" <<'X'
["How do I boil an egg?", "Put it into boiling water for seven minutes, then cool it."]
["How long does rice have to cook?", "Twelve minutes on low heat, then rest it for five."]
X
adapter sql "Turns questions about tables into SQL" "code database" <<'X'
["How many users are there?", "SELECT COUNT(*) FROM users;"]
["List all orders of 2024", "SELECT * FROM orders WHERE year = 2024;"]
X
adapter haiku "Says everything in three short lines" "style poetry" <<'X'
["Tell me about rain", "Grey drops on the roof\nthe garden holds its breath now\ngreen comes after rain"]
X
adapter travel "Where to go and how to get there" "leisure" <<'X'
["Where should I go in May?", "Lisbon: warm, bright, and not yet crowded."]
["How do I get from Rome to Naples?", "Take the fast train; it needs seventy minutes."]
X
adapter plain-words "Explains hard things to children" "teaching style" <<'X'
["What is gravity?", "It is what pulls you back to the ground when you jump."]
X
adapter mail "Writes short and polite letters" "office" <<'X'
["Decline a meeting", "Thank you for the invitation. I cannot join on that day; may we find another?"]
X

"$given" serve -m "$model" --library "$work/library" --port 18085 -c 8192 -np 4 --metrics --log-disable 2>/dev/null &
server=$!
for _ in $(seq 200); do
  if curl -sf http://127.0.0.1:18085/health >/dev/null; then break; fi
  sleep 0.1
done
# Something for the plots to show.
for n in 1 2 3 4 5 6; do
  for text in "My card has not come" "How long do I cook potatoes?" "Count the orders per user"; do
    curl -sf http://127.0.0.1:18085/v1/chat/completions -H 'Content-Type: application/json' -o /dev/null \
      -d "{\"adapters\": \"auto\", \"max_tokens\": $((12 + 6 * n)), \"messages\": [{\"role\": \"user\", \"content\": \"$text $n\"}]}" &
  done
  sleep 0.4
done
wait $(jobs -p | grep -v "^$server$") || true
(cd "$out" && node page.mjs http://127.0.0.1:18085/ "$out" ${SMOA_PAGE_README:+"$SMOA_PAGE_README"})
