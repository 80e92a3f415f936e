#!/bin/sh
# Create Temporal's two databases, or update them to this version's schema. Safe to run again.
# SQL_HOST, SQL_PORT, SQL_PLUGIN, SQL_USER and SQL_PASSWORD name the connection.
set -eu

schemas=/etc/temporal/schema/postgresql/v12

migrate() {
    temporal-sql-tool --db "$1" create
    temporal-sql-tool --db "$1" setup-schema -v 0.0
    temporal-sql-tool --db "$1" update-schema -d "$schemas/$2/versioned"
}

migrate temporal temporal
migrate temporal_visibility visibility
