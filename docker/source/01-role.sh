#!/bin/sh
# The role that cdcrep connects with: no superuser. It replicates, and creates the publication of the tables it owns.
# Sourced by the image's entry point: no `exit`, no shell options.
psql --set=ON_ERROR_STOP=1 --username=postgres --dbname=shop <<'SQL'
\getenv password SOURCE_PASSWORD
CREATE ROLE cdc LOGIN REPLICATION PASSWORD :'password';
GRANT CREATE ON DATABASE shop TO cdc;
GRANT CREATE ON SCHEMA public TO cdc;
SQL
