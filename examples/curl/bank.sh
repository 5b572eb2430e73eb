#!/bin/sh
# A bank: transfers between accounts that never lose or make money, and an auditor.
# usage: bank.sh http://localhost:4000
set -eu
url=$1

value() { curl -fsS "$url/v1/keys/bank/$1"; }

# transfer FROM TO AMOUNT: commits only if both balances are still what was read.
transfer() {
    while :; do
        from=$(value "$1") to=$(value "$2")
        [ "$from" -ge "$3" ] || return 1
        status=$(curl -sS -o /dev/null -w '%{http_code}' "$url/v1/transactions" -d '{
            "checks":    [{"key": "bank/'"$1"'", "value": "'"$from"'"},
                          {"key": "bank/'"$2"'", "value": "'"$to"'"}],
            "mutations": [{"set": {"key": "bank/'"$1"'", "value": "'"$((from - $3))"'"}},
                          {"set": {"key": "bank/'"$2"'", "value": "'"$((to + $3))"'"}}]}')
        case $status in
            200) return 0 ;;
            409) ;; # somebody else was quicker: look again
            *) echo "transfer: status $status" >&2; return 2 ;;
        esac
    done
}

# All accounts at one version.
audit() {
    curl -fsS "$url/v1/keys?prefix=bank/" | grep -o '"value":"[0-9]*"' | tr -dc '0-9\n' |
        awk '{ sum += $1 } END { print sum }'
}

for account in alice bob carol; do
    curl -fsS -X PUT "$url/v1/keys/bank/$account" -d 100 > /dev/null
done

(for _ in 1 2 3 4 5 6 7 8; do transfer alice bob 5; done) &
(for _ in 1 2 3 4 5 6 7 8; do transfer bob carol 7; done) &
for _ in 1 2 3 4 5; do
    sum=$(audit)
    [ "$sum" = 300 ] || { echo "the auditor finds $sum" >&2; exit 1; }
done
wait
[ "$(audit)" = 300 ]
echo "alice $(value alice), bob $(value bob), carol $(value carol), sum $(audit)"
