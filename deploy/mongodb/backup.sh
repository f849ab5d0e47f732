#!/bin/sh
# Dumps the databases htxas and htxas_fireworks to FOLDER/htxas-DATE.gz and FOLDER/htxas_fireworks-DATE.gz.
# The connection string comes from $HTXAS_DB_URI_FILE and never shows in the process list.
set -eu
folder=${1:?usage: backup.sh FOLDER}
umask 077
config=$(mktemp)
trap 'rm -f "$config"' EXIT
printf 'uri: "%s"\n' "$(cat "${HTXAS_DB_URI_FILE:?name the file with the connection string}")" >"$config"
date=$(date -u +%Y-%m-%dT%H%M%SZ)
for name in htxas htxas_fireworks; do
    mongodump --config "$config" --db "$name" --gzip --archive="$folder/$name-$date.gz.part"
    mv "$folder/$name-$date.gz.part" "$folder/$name-$date.gz"
done
find "$folder" -name 'htxas*.gz' -mtime +14 -delete
