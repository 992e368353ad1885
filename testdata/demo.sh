#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# demo.sh TENON IMAGE BUNDLE: builds and signs an app kernel from the OCI image
# layout of redis, verifies it, boots it, talks to it, and stops it.
set -eu

tenon=$1 image=$2 bundle=$3 port=${DEMO_PORT:-16379}
keys=$(dirname "$bundle")/keys
log=$(mktemp)
run=
cleanup() {
	if [ -n "$run" ]; then kill -KILL "$run" 2>/dev/null || true; fi
	rm -f "$log" "$log.console"
}
trap cleanup EXIT

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

if [ ! -d "$keys" ]; then
	say "tenon key create $keys"
	"$tenon" key create "$keys"
fi

say "tenon build oci:$image --key $keys/signing.key"
"$tenon" build "oci:$image" --key "$keys/signing.key" -o "$bundle"

say "tenon verify $bundle --cert $keys/ca.crt"
"$tenon" verify "$bundle" --cert "$keys/ca.crt"

say "tenon run $bundle"
"$tenon" run --cert "$keys/ca.crt" -p "$port:6379" "$bundle" >"$log.console" 2> >(tee "$log" >&2) &
run=$!
for _ in $(seq 600); do
	if grep -q 'the app is healthy' "$log"; then break; fi
	kill -0 "$run" 2>/dev/null || { echo "the app kernel ended early:"; cat "$log.console"; exit 1; }
	sleep 0.1
done
grep -q 'the app is healthy' "$log" || { echo "redis did not become healthy within a minute:"; cat "$log.console"; exit 1; }

say "talking to redis in its own kernel, over port $port"
ask() {
	printf '  %-28s -> ' "$*"
	redis-cli -p "$port" "$@"
}
ask PING
ask SET tenon mortise
ask GET tenon
[ "$(redis-cli -p "$port" GET tenon)" = mortise ]
printf '  kernel %s -> ' "under it:"
redis-cli -p "$port" INFO server | sed -n 's/^os://p'

say "stopping it (Ctrl-C sends the app's stop signal)"
kill -INT "$run"
status=0
wait "$run" || status=$?
run=
tail -n 4 "$log.console" | sed 's/^/  /'
echo "exit status of redis: $status"
exit "$status"
