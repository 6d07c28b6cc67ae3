#!/bin/sh
# MLServer with two workers; BATCH_S lets it batch. PYTHON is its environment's interpreter.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/$MODEL"
cat > "$folder/settings.json" <<SETTINGS
{"debug": false, "host": "127.0.0.1", "http_port": $PORT, "grpc_port": $((PORT + 1)), "metrics_port": $((PORT + 2)),
 "parallel_workers": 2}
SETTINGS
batching=${BATCH_S:+, \"max_batch_size\": 64, \"max_batch_time\": $BATCH_S}
cat > "$folder/$MODEL/model-settings.json" <<SETTINGS
{"name": "$MODEL", "implementation": "mlserver_sklearn.SKLearnModel",
 "parameters": {"uri": "$MODELS/$MODEL.pkl"}$batching}
SETTINGS
"$(dirname "$PYTHON")/mlserver" start "$folder"
