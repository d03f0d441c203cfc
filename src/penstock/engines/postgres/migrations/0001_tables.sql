-- The schema of the PostgreSQL engine. `penstock.` becomes the chosen schema when this file is applied.
-- Times are Unix time of the server's clock, in seconds.
-- A task's number is lane << 45 | sequence: its place in its lane, and what its public id is made of.
-- Ready tasks are in `task`, delayed ones in `delayed`; a claim moves ready tasks into one `lease` row.

CREATE SEQUENCE penstock.block INCREMENT 1024 START 1024;
CREATE SEQUENCE penstock.ticket;

CREATE TABLE penstock.meta (name text PRIMARY KEY, value bytea NOT NULL);

CREATE TABLE penstock.queue (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    namespace text NOT NULL, name text NOT NULL,
    max_length bigint NOT NULL, max_bytes bigint NOT NULL,
    opened double precision NOT NULL, paused boolean NOT NULL DEFAULT false,
    count bigint NOT NULL DEFAULT 0, bytes bigint NOT NULL DEFAULT 0,
    enqueued bigint NOT NULL DEFAULT 0, settled bigint NOT NULL DEFAULT 0,
    UNIQUE (namespace, name));

CREATE TABLE penstock.lane (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queue integer NOT NULL, priority smallint NOT NULL, partition text NOT NULL,
    UNIQUE (queue, priority, partition));

-- What is to be added to the counts of a queue (0: of the results): appended, so that nobody waits for a counter.
CREATE TABLE penstock.delta (
    queue integer NOT NULL, count bigint NOT NULL, bytes bigint NOT NULL,
    enqueued bigint NOT NULL, settled bigint NOT NULL)
    WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

-- `id` is another number than `pos` when the task was delayed or tried before.
CREATE TABLE penstock.task (
    pos bigint PRIMARY KEY, id bigint NOT NULL, attempts smallint NOT NULL, body bytea NOT NULL)
    WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_cost_delay = 0);
ALTER TABLE penstock.task ALTER body SET STORAGE EXTERNAL;
CREATE INDEX task_moved ON penstock.task (id) WHERE id <> pos;

CREATE TABLE penstock.delayed (
    id bigint PRIMARY KEY, due double precision NOT NULL, lane integer NOT NULL,
    attempts smallint NOT NULL, body bytea NOT NULL);
ALTER TABLE penstock.delayed ALTER body SET STORAGE EXTERNAL;
CREATE INDEX delayed_due ON penstock.delayed (due);

-- One claim of one lane: the tasks themselves, in arrays. An id of 0 is settled. `count` and `size` are of the rest.
CREATE TABLE penstock.lease (
    token bigint PRIMARY KEY, worker text NOT NULL, until double precision NOT NULL, lane integer NOT NULL,
    count integer NOT NULL, size bigint NOT NULL,
    pos bigint[] NOT NULL, ids bigint[] NOT NULL, attempts smallint[] NOT NULL, bodies bytea[] NOT NULL)
    WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
ALTER TABLE penstock.lease ALTER bodies SET STORAGE EXTERNAL;
ALTER TABLE penstock.lease ALTER pos SET STORAGE EXTERNAL;
ALTER TABLE penstock.lease ALTER ids SET STORAGE EXTERNAL;
CREATE INDEX lease_worker ON penstock.lease (worker);
CREATE INDEX lease_until ON penstock.lease (until);

CREATE TABLE penstock.dead (
    id bigint PRIMARY KEY, lane integer NOT NULL, reason text NOT NULL, died double precision NOT NULL,
    attempts smallint NOT NULL, body bytea NOT NULL);

-- Outcomes of up to 64 neighbours: bit n of `mask` is number bucket << 6 | n. Of two for one number, the lower `nr`
-- counts. No body: they were revoked.
CREATE TABLE penstock.result (
    nr bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    bucket bigint NOT NULL, mask bigint NOT NULL, at double precision NOT NULL,
    worker text NOT NULL, size integer NOT NULL, body bytea);
ALTER TABLE penstock.result ALTER body SET STORAGE EXTERNAL;
CREATE INDEX result_bucket ON penstock.result (bucket);

-- Ids that somebody chose; kept as long as results, so that a repeat is recognised.
CREATE TABLE penstock.alias (name text PRIMARY KEY, id bigint NOT NULL, at double precision NOT NULL);
CREATE INDEX alias_id ON penstock.alias (id);
CREATE INDEX alias_at ON penstock.alias (at);

-- What was published lately, by numbers: a publish whose outcome was unknown is recognised when it is repeated.
CREATE TABLE penstock.sent (first bigint PRIMARY KEY, last bigint NOT NULL, at double precision NOT NULL);
CREATE INDEX sent_at ON penstock.sent (at);

CREATE TABLE penstock.unique_key (
    namespace text NOT NULL, name text NOT NULL, id bigint NOT NULL, until double precision,
    on_start boolean NOT NULL, started boolean NOT NULL DEFAULT false,
    PRIMARY KEY (namespace, name));
CREATE INDEX unique_key_id ON penstock.unique_key (id);
CREATE TABLE penstock.dedup (
    namespace text NOT NULL, name text NOT NULL, id bigint NOT NULL, until double precision NOT NULL,
    PRIMARY KEY (namespace, name));
CREATE TABLE penstock.revoked (id bigint PRIMARY KEY, terminate boolean NOT NULL, at double precision NOT NULL);
CREATE TABLE penstock.revoked_name (name text PRIMARY KEY, at double precision NOT NULL);
CREATE TABLE penstock.gathering (name text PRIMARY KEY, closed double precision);
CREATE TABLE penstock.gathered (
    name text NOT NULL, index integer NOT NULL, value bytea NOT NULL, PRIMARY KEY (name, index));

CREATE TABLE penstock.worker (
    id text PRIMARY KEY, info bytea NOT NULL, seen double precision NOT NULL, until double precision NOT NULL);
CREATE TABLE penstock.leader (
    name text PRIMARY KEY, holder text NOT NULL, token bigint NOT NULL, until double precision NOT NULL);
CREATE TABLE penstock.state (key text PRIMARY KEY, value bytea NOT NULL, version bigint NOT NULL);

-- Gone after a crash of the server, when everybody connects, and registers, again.
CREATE UNLOGGED TABLE penstock.progress (
    id bigint PRIMARY KEY, done double precision NOT NULL, total double precision, note text NOT NULL);
CREATE UNLOGGED TABLE penstock.waiting (
    process text NOT NULL, queue integer NOT NULL, until double precision NOT NULL, PRIMARY KEY (queue, process));
CREATE INDEX waiting_process ON penstock.waiting (process);
CREATE UNLOGGED TABLE penstock.watching (process text PRIMARY KEY, until double precision NOT NULL);

INSERT INTO penstock.queue (id, namespace, name, max_length, max_bytes, opened)
    OVERRIDING SYSTEM VALUE VALUES (0, '', '', 0, 0, 0);
