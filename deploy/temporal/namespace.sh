#!/bin/sh
# Create the namespace and the search attributes of builds if they are missing. Safe to run again.
# TEMPORAL_ADDRESS and TEMPORAL_NAMESPACE name the server and the namespace. RETENTION is how long the server keeps
# closed workflows.
set -eu

# A server that has just started is not healthy yet, and it needs some seconds before it knows a new namespace.
retry() {
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

retry temporal operator cluster health

temporal operator namespace describe --namespace "$TEMPORAL_NAMESPACE" >/dev/null 2>&1 ||
    temporal operator namespace create --namespace "$TEMPORAL_NAMESPACE" --retention "${RETENTION:-30d}"

for attribute in BuildStatus BuildWaitingFor BuildUser BuildProject BuildPlan; do
    retry temporal operator search-attribute create \
        --namespace "$TEMPORAL_NAMESPACE" --name "$attribute" --type Keyword
done
