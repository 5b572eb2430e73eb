#!/bin/sh
# A work queue: jobs are taken in the order in which they were committed, each by one worker.
# usage: queue.sh http://localhost:4000
set -eu
url=$1
taken=$(mktemp)
trap 'rm -f "$taken"' EXIT

# The ten bytes after queue/ become the place of the commit: keys are unique and in order.
enqueue() {
    curl -fsS "$url/v1/keys/queue%2F0123456789/atomic" \
        -d '{"op": "versionstamped_key", "offset": 6, "operand": "'"$1"'"}' > /dev/null
}

# Takes the first job, if nobody else has taken it meanwhile. Prints it; fails if there is none.
take() {
    while :; do
        first=$(curl -fsS "$url/v1/keys?prefix=queue/&limit=1")
        key=$(echo "$first" | grep -o '"key":{[^}]*}' | head -n 1 | cut -d: -f2-)
        job=$(echo "$first" | grep -o '"value":"[^"]*"' | head -n 1 | cut -d'"' -f4)
        [ -n "$key" ] || return 1
        status=$(curl -sS -o /dev/null -w '%{http_code}' "$url/v1/transactions" -d '{
            "checks":    [{"key": '"$key"', "absent": false}],
            "mutations": [{"clear": {"key": '"$key"'}}]}')
        case $status in
            200) echo "$job"; return 0 ;;
            409) ;; # taken by another worker
            *) echo "take: status $status" >&2; return 2 ;;
        esac
    done
}

curl -fsS -X DELETE "$url/v1/keys?from=queue/&to=queue0" > /dev/null
for number in 1 2 3 4 5 6; do enqueue "job-$number"; done
[ "$(take)" = job-1 ]
(while job=$(take); do echo "$job" >> "$taken"; done) &
(while job=$(take); do echo "$job" >> "$taken"; done) &
wait
[ "$(sort "$taken" | tr '\n' ' ')" = "job-2 job-3 job-4 job-5 job-6 " ]
echo "each job once: job-1 $(sort "$taken" | tr '\n' ' ')"
