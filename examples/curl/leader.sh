#!/bin/sh
# Leader election: who first writes the key leads; the others watch it and stand again when it goes.
# usage: leader.sh http://localhost:4000
set -eu
url=$1
key="$url/v1/keys/leader"

# Succeeds for one candidate at a time.
stand() {
    status=$(curl -sS -o /dev/null -w '%{http_code}' -X PUT "$key" -H 'If-None-Match: *' -d "$1")
    [ "$status" = 200 ]
}

# Waits until the leader is another than $1, or none.
change() {
    until curl -fsS "$url/v1/keys/leader/watch?wait=30s&value=$1" | grep -q '"changed":true'; do :; done
}

curl -fsS -X DELETE "$key" > /dev/null
stand ada
if stand bert; then echo 'two leaders' >&2; exit 1; fi
(change ada; stand bert) &
successor=$!
# The leader resigns, but only if it still leads.
curl -fsS "$url/v1/transactions" -d '{
    "checks": [{"key": "leader", "value": "ada"}], "mutations": [{"clear": {"key": "leader"}}]}' > /dev/null
wait "$successor"
[ "$(curl -fsS "$key")" = bert ]
echo 'bert follows ada'
