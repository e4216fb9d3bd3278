# What `make demo` does, in an empty folder: two days of the example shop, told over HTTP to a
# sandbox that ends with this script. DAYS are the cycle times.
set -eu
unset AUDIENCE_SYNC_CONFIG

step() {
    printf '\n$ audience-sync %s\n' "$*"
    audience-sync "$@"
}

told() { # what the sandbox knows at the end, asked as any test would
    python - "$(sed -n 's/^endpoint = "\(.*\)\/v1"$/\1/p' sandbox.toml | head -n 1)" << 'PYTHON'
import json, sys, urllib.request
from collections import Counter

def asked(name):
    with urllib.request.urlopen(f"{sys.argv[1]}/sandbox/{name}.json") as answer:
        return json.load(answer)

def show(name, people, traits):
    counted = Counter((k, v) for p in people for k, v in p[traits].items() if isinstance(v, bool))
    print(f"\n{name}: {len(people)}, and of them")
    for (key, value), number in sorted(counted.items()):
        print(f"  {number:3} with {key} = {json.dumps(value)}")

people = asked("people")
(crisp,) = people["crisp"].values()
show("Users in Segment", people["segment"], "traits")
show("People in Crisp (who has no e-mail cannot be one)", crisp, "data")
for api, routes in asked("counts")["days"].popitem()[1].items():
    for route, outcomes in routes.items():
        print(f"  {sum(outcomes.values()):3} requests {api} {route}")
print("\nOne of the people:")
print(json.dumps(crisp[0], indent=2))
PYTHON
}

step init --example
# The sandbox instead of the file.
sed -e '1i\
include = ["sandbox.toml"]' -e 's/^destinations = \["calls"\]/destinations = ["segment", "crisp"]/' \
    -e '/^\[destinations\.calls\]/,/^path/d' config.toml > changed.toml
mv changed.toml config.toml

printf '\n$ audience-sync sandbox --listen 127.0.0.1:0 --write sandbox.toml\n'
audience-sync sandbox --listen 127.0.0.1:0 --write sandbox.toml > sandbox.log 2>&1 &
sandbox=$!
trap 'kill $sandbox 2> /dev/null; wait $sandbox 2> /dev/null' EXIT
trap 'exit 130' HUP INT PIPE TERM # else a shell that is ended by one of them forgets the first trap
until [ -e sandbox.toml ]; do
    kill -0 $sandbox 2> /dev/null || { cat sandbox.log >&2; exit 1; }
    sleep 0.1
done
cat sandbox.log

for day in $DAYS; do
    step diff --now "$day"
    step sync --now "$day"
done
step status

printf '\nWhat the sandbox was told:\n'
told
printf '\nIt ends now. To look at its pages: audience-sync sandbox\n'
