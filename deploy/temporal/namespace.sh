#!/bin/sh
# Creates the namespace and the search attributes of builds where they are missing. Does no harm when run again.
# The server and the namespace are in TEMPORAL_ADDRESS and TEMPORAL_NAMESPACE; RETENTION is how long closed workflows
# are kept.
set -eu

# A server that has just started is not healthy yet, and it takes some seconds to know a new namespace.
patiently() {
    attempt=1
    until "$@"; do
        attempt=$((attempt + 1))
        if [ "$attempt" -gt 30 ]; then
            echo "Gave up after $attempt attempts: $*" >&2
            return 1
        fi
        sleep 2
    done
}

patiently temporal operator cluster health

temporal operator namespace describe --namespace "$TEMPORAL_NAMESPACE" >/dev/null 2>&1 ||
    temporal operator namespace create --namespace "$TEMPORAL_NAMESPACE" --retention "${RETENTION:-30d}"

for attribute in BuildStatus BuildWaitingFor BuildUser BuildProject BuildPlan; do
    patiently temporal operator search-attribute create \
        --namespace "$TEMPORAL_NAMESPACE" --name "$attribute" --type Keyword
done
