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

CREATE FUNCTION penstock.now() RETURNS double precision LANGUAGE sql VOLATILE
    AS 'SELECT extract(epoch FROM clock_timestamp())::double precision';

-- The channel on which ends of tasks are told.
CREATE FUNCTION penstock.channel() RETURNS text LANGUAGE sql STABLE
    AS $$SELECT 'penstock_results_' || 'penstock.result'::regclass::oid$$;

CREATE FUNCTION penstock.route(
    p_namespace text, p_queue text, p_priority integer, p_partition text, p_length bigint, p_bytes bigint,
    OUT queue integer, OUT lane integer) LANGUAGE plpgsql AS $$
BEGIN
    SELECT q.id INTO queue FROM penstock.queue q WHERE q.namespace = p_namespace AND q.name = p_queue AND q.id > 0;
    IF NOT FOUND THEN
        INSERT INTO penstock.queue (namespace, name, max_length, max_bytes, opened)
            VALUES (p_namespace, p_queue, p_length, p_bytes, penstock.now()) ON CONFLICT DO NOTHING;
        SELECT q.id INTO queue FROM penstock.queue q WHERE q.namespace = p_namespace AND q.name = p_queue;
    END IF;
    SELECT l.id INTO lane FROM penstock.lane l
        WHERE l.queue = route.queue AND l.priority = p_priority AND l.partition = p_partition;
    IF NOT FOUND THEN
        INSERT INTO penstock.lane (queue, priority, partition)
            VALUES (route.queue, p_priority, p_partition) ON CONFLICT DO NOTHING;
        SELECT l.id INTO lane FROM penstock.lane l
            WHERE l.queue = route.queue AND l.priority = p_priority AND l.partition = p_partition;
    END IF;
END $$;

-- Wake as many sleeping processes as there are tasks. Who is woken is no longer registered.
CREATE FUNCTION penstock.ring(p_queue integer, p_count bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM penstock.waiting w WHERE w.queue = p_queue) THEN
        WITH chosen AS (
            SELECT w.process FROM penstock.waiting w WHERE w.queue = p_queue AND w.until > penstock.now()
            LIMIT least(p_count, 64) FOR UPDATE SKIP LOCKED
        ), gone AS (
            DELETE FROM penstock.waiting w USING chosen c WHERE w.process = c.process RETURNING w.process
        )
        SELECT count(pg_notify('penstock_' || process, '')) INTO p_count FROM (SELECT DISTINCT process FROM gone) g;
    END IF;
END $$;

-- Tell who waits for results that these buckets have new ones.
CREATE FUNCTION penstock.tell(p_buckets bigint[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM penstock.watching w WHERE w.until > penstock.now()) THEN
        PERFORM pg_notify(penstock.channel(),
            CASE WHEN cardinality(p_buckets) > 350 THEN '' ELSE array_to_string(p_buckets, ' ') END);
    END IF;
END $$;

-- Whether `p_count` new tasks fit; `unit` is null when they do. Far from the bound producers share a lock, near it they
-- take turns, so that what the others have not committed is never more than what is left.
CREATE FUNCTION penstock.admit(
    p_queue integer, p_count bigint, p_size bigint, p_locked boolean,
    OUT depth bigint, OUT bound bigint, OUT unit text, OUT excess bigint, OUT settled bigint, OUT age double precision)
LANGUAGE plpgsql AS $$
DECLARE
    level record;
    alone boolean := false;
BEGIN
    LOOP
        SELECT q.max_length, q.max_bytes, q.opened, q.count + coalesce(d.count, 0) AS count,
               q.bytes + coalesce(d.bytes, 0) AS bytes, q.settled + coalesce(d.settled, 0) AS settled
          INTO level
          FROM penstock.queue q, (
            SELECT sum(count)::bigint AS count, sum(bytes)::bigint AS bytes, sum(x.settled)::bigint AS settled
            FROM penstock.delta x WHERE x.queue = p_queue) d
          WHERE q.id = p_queue;
        EXIT WHEN alone OR NOT p_locked;
        EXIT WHEN p_count * 128 <= level.max_length - level.count AND p_size * 128 <= level.max_bytes - level.bytes
            AND pg_try_advisory_xact_lock_shared(7361, p_queue);
        PERFORM pg_advisory_xact_lock(7361, p_queue);
        alone := true;
    END LOOP;
    settled := level.settled;
    age := penstock.now() - level.opened;
    IF level.count + p_count > level.max_length THEN
        depth := level.count; bound := level.max_length; unit := 'tasks'; excess := level.count + p_count - bound;
    ELSIF level.bytes + p_size > level.max_bytes THEN
        depth := level.bytes; bound := level.max_bytes; unit := 'bytes'; excess := p_count;
    END IF;
END $$;

CREATE FUNCTION penstock.has_result(p_id bigint) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM penstock.result r
        WHERE r.bucket = p_id >> 6 AND r.mask & (1::bigint << (p_id & 63)::integer) <> 0)
$$;

-- Whether this number was accepted before.
CREATE FUNCTION penstock.known(p_id bigint, p_sent boolean) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN EXISTS (SELECT FROM penstock.task t WHERE t.pos = p_id AND t.id = p_id)
        OR EXISTS (SELECT FROM penstock.task t WHERE t.id = p_id AND t.id <> t.pos)
        OR EXISTS (SELECT FROM penstock.delayed d WHERE d.id = p_id)
        OR EXISTS (SELECT FROM penstock.dead d WHERE d.id = p_id)
        OR (p_sent AND p_id <= (SELECT s.last FROM penstock.sent s WHERE s.first <= p_id ORDER BY s.first DESC LIMIT 1))
        OR penstock.has_result(p_id)
        OR EXISTS (SELECT FROM penstock.lease l WHERE p_id = ANY (l.ids));
END $$;

-- Publish a batch: message n goes to lane p_lanes[n] (or to the only one) under number p_pos[n]. Returns the answers that
-- are not "accepted"; one of n = 0 is for all. p_ids, p_names, p_dues: where a message has an id or a time of its own;
-- p_guards: [[n, kind, namespace, key, ttl, on_start, token], …]. p_bound: 'exact', 'soft' (no locks), or 'none'.
CREATE FUNCTION penstock.publish(
    p_lanes integer[], p_pos bigint[], p_bodies bytea[], p_ids bigint[], p_names text[], p_dues double precision[],
    p_guards jsonb, p_bound text)
RETURNS TABLE (n integer, kind text, id bigint, name text,
               depth bigint, bound bigint, unit text, excess bigint, settled bigint, age double precision)
LANGUAGE plpgsql AS $$
DECLARE
    q integer;
    size bigint;
    count bigint := cardinality(p_pos);
    tasks_left bigint;
    bytes_left bigint;
    full_ record;
BEGIN
    IF p_ids IS NOT NULL OR p_names IS NOT NULL OR p_dues IS NOT NULL OR p_guards IS NOT NULL
        OR cardinality(p_lanes) > 1 OR p_bound = 'none' THEN
        RETURN QUERY SELECT * FROM penstock.publish_mixed(
            p_lanes, p_pos, p_bodies, p_ids, p_names, p_dues, p_guards, p_bound);
        RETURN;
    END IF;
    SELECT sum(octet_length(b)) INTO size FROM unnest(p_bodies) b;
    SELECT y.id, y.max_length - y.count - d.count, y.max_bytes - y.bytes - d.bytes INTO q, tasks_left, bytes_left
        FROM penstock.lane l JOIN penstock.queue y ON y.id = l.queue, LATERAL (
            SELECT coalesce(sum(x.count)::bigint, 0) AS count, coalesce(sum(x.bytes)::bigint, 0) AS bytes
            FROM penstock.delta x WHERE x.queue = l.queue) d
        WHERE l.id = p_lanes[1];
    -- Far from the bound this look is enough, and cheaper than the function that looks again.
    IF NOT (count * 128 <= tasks_left AND size * 128 <= bytes_left AND p_bound = 'exact'
            AND pg_try_advisory_xact_lock_shared(7361, q)) THEN
        SELECT * INTO full_ FROM penstock.admit(q, count, size, p_bound = 'exact');
        IF full_.unit IS NOT NULL THEN
            RETURN QUERY SELECT 0, 'full', NULL::bigint, NULL::text, full_.depth, full_.bound, full_.unit,
                full_.excess, full_.settled, full_.age;
            RETURN;
        END IF;
    END IF;
    INSERT INTO penstock.sent VALUES (p_pos[1], p_pos[count], penstock.now());
    INSERT INTO penstock.task SELECT u.p, u.p, 0, u.b FROM unnest(p_pos, p_bodies) u (p, b);
    INSERT INTO penstock.delta VALUES (q, count, size, count, 0);
    IF p_bound = 'soft' THEN
        PERFORM penstock.ring_at_commit(q);
    ELSE
        PERFORM penstock.ring(q, count);
    END IF;
END $$;

CREATE FUNCTION penstock.publish_mixed(
    p_lanes integer[], p_pos bigint[], p_bodies bytea[], p_ids bigint[], p_names text[], p_dues double precision[],
    p_guards jsonb, p_bound text)
RETURNS TABLE (n integer, kind text, id bigint, name text,
               depth bigint, bound bigint, unit text, excess bigint, settled bigint, age double precision)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    total integer := cardinality(p_pos);
    now_ double precision := penstock.now();
    kinds text[] := array_fill(NULL::text, ARRAY[total]);
    keys bigint[] := array_fill(NULL::bigint, ARRAY[total]);
    texts text[] := array_fill(NULL::text, ARRAY[total]);
    fresh bigint[] := '{}';
    queues integer[] := '{}';
    sizes bigint[] := '{}';
    wakes boolean[] := '{}';
    full_ record;
    due double precision;
    lane_ integer;
    q integer;
    me bigint;
    holder bigint;
    chosen text;
    answer text;
    g jsonb;
    r record;
BEGIN
    BEGIN
        FOR i IN 1..total LOOP
            lane_ := p_lanes[CASE WHEN cardinality(p_lanes) = 1 THEN 1 ELSE i END];
            me := coalesce(p_ids[i], p_pos[i]);
            chosen := p_names[i];
            answer := NULL;
            IF chosen IS NOT NULL THEN
                IF EXISTS (SELECT FROM penstock.alias a WHERE a.name = chosen) THEN
                    answer := 'duplicate'; holder := NULL;
                END IF;
            ELSIF p_ids[i] IS NOT NULL AND (me = ANY (fresh) OR penstock.known(me, p_bound <> 'none')) THEN
                answer := 'duplicate'; holder := me;
            END IF;
            IF answer IS NULL AND p_guards IS NOT NULL THEN
                FOR g IN SELECT e FROM jsonb_array_elements(p_guards) e WHERE (e ->> 0)::integer = i LOOP
                    holder := NULL;
                    IF g ->> 1 = 'fence' THEN
                        IF NOT EXISTS (SELECT FROM penstock.leader l WHERE l.name = g ->> 3
                                AND l.token = (g ->> 6)::bigint AND l.until > now_) THEN
                            answer := 'fenced';
                        END IF;
                    ELSIF g ->> 1 = 'dedup' THEN
                        SELECT d.id INTO holder FROM penstock.dedup d
                            WHERE d.namespace = g ->> 2 AND d.name = g ->> 3 AND d.until > now_;
                        IF FOUND THEN answer := 'duplicate'; END IF;
                    ELSE
                        SELECT u.id INTO holder FROM penstock.unique_key u WHERE u.namespace = g ->> 2
                            AND u.name = g ->> 3 AND NOT u.started AND (u.until IS NULL OR u.until > now_);
                        IF FOUND THEN answer := 'conflict'; END IF;
                    END IF;
                    IF answer IS NOT NULL THEN
                        chosen := CASE WHEN holder IS NULL THEN NULL
                            ELSE (SELECT a.name FROM penstock.alias a WHERE a.id = holder LIMIT 1) END;
                        IF answer <> 'duplicate' THEN texts[i] := g ->> 3; END IF;
                        EXIT;
                    END IF;
                END LOOP;
            END IF;
            IF answer IS NULL AND chosen IS NOT NULL THEN
                INSERT INTO penstock.alias VALUES (chosen, me, now_) ON CONFLICT DO NOTHING;
                IF NOT FOUND THEN answer := 'duplicate'; holder := NULL; END IF;
            END IF;
            IF answer IS NOT NULL THEN
                kinds[i] := answer; keys[i] := holder;
                -- A holder that chose its id is named by it; for a fence or a key, the name of that comes first.
                IF chosen IS NOT NULL THEN texts[i] := concat_ws(chr(10), texts[i], chosen); END IF;
                CONTINUE;
            END IF;
            IF p_guards IS NOT NULL THEN
                FOR g IN SELECT e FROM jsonb_array_elements(p_guards) e WHERE (e ->> 0)::integer = i LOOP
                    IF g ->> 1 = 'dedup' THEN
                        INSERT INTO penstock.dedup AS d VALUES (g ->> 2, g ->> 3, me, now_ + (g ->> 4)::double precision)
                            ON CONFLICT (namespace, name) DO UPDATE SET id = excluded.id, until = excluded.until
                            WHERE d.until <= now_;
                    ELSIF g ->> 1 = 'unique' THEN
                        INSERT INTO penstock.unique_key AS u VALUES
                            (g ->> 2, g ->> 3, me, now_ + (g ->> 4)::double precision, (g ->> 5)::boolean, false)
                            ON CONFLICT (namespace, name) DO UPDATE SET id = excluded.id, until = excluded.until,
                                on_start = excluded.on_start, started = false
                            WHERE u.started OR u.until <= now_;
                    ELSE
                        CONTINUE;
                    END IF;
                    IF NOT FOUND THEN
                        -- Somebody took it while we waited for his commit: look at all of it again.
                        RAISE EXCEPTION 'a key was taken meanwhile' USING ERRCODE = '40001';
                    END IF;
                END LOOP;
            END IF;
            fresh := fresh || me;
            IF chosen IS NOT NULL THEN
                DELETE FROM penstock.revoked_name v WHERE v.name = chosen;
                IF FOUND THEN
                    PERFORM penstock.end_revoked(ARRAY[me]);
                    CONTINUE;
                END IF;
            END IF;
            SELECT l.queue INTO q FROM penstock.lane l WHERE l.id = lane_;
            due := p_dues[i];
            IF due > now_ THEN
                INSERT INTO penstock.delayed VALUES (me, due, lane_, 0, p_bodies[i]);
            ELSE
                INSERT INTO penstock.task VALUES (p_pos[i], me, 0, p_bodies[i]);
            END IF;
            IF me = p_pos[i] AND chosen IS NULL AND p_bound <> 'none' THEN
                INSERT INTO penstock.sent VALUES (me, me, now_) ON CONFLICT DO NOTHING;
            END IF;
            queues := queues || q;
            sizes := sizes || octet_length(p_bodies[i])::bigint;
            wakes := wakes || (due IS NULL OR due <= now_ + 15);
        END LOOP;
        FOR r IN SELECT u.q, count(*) AS count, sum(u.s)::bigint AS size, bool_or(u.w) AS wake
                FROM unnest(queues, sizes, wakes) u (q, s, w) GROUP BY u.q ORDER BY u.q LOOP
            IF p_bound <> 'none' THEN
                SELECT * INTO full_ FROM penstock.admit(r.q, r.count, r.size, p_bound = 'exact');
                IF full_.unit IS NOT NULL THEN
                    q := r.q;
                    RAISE EXCEPTION 'full' USING ERRCODE = 'PS001';
                END IF;
            END IF;
            INSERT INTO penstock.delta VALUES (r.q, r.count, r.size, r.count, 0);
            IF r.wake AND p_bound = 'soft' THEN
                PERFORM penstock.ring_at_commit(r.q);
            ELSIF r.wake THEN
                PERFORM penstock.ring(r.q, r.count);
            END IF;
        END LOOP;
    EXCEPTION WHEN SQLSTATE 'PS001' THEN
        SELECT z.name INTO chosen FROM penstock.queue z WHERE z.id = q;
        FOR i IN 1..total LOOP
            -- A repeat of a message of this very batch repeats something that is not there.
            IF kinds[i] IS NULL OR keys[i] = ANY (fresh)
                OR (kinds[i] = 'duplicate' AND NOT EXISTS (SELECT FROM penstock.alias a WHERE a.name = texts[i])
                    AND keys[i] IS NULL) THEN
                RETURN QUERY SELECT i, 'full', NULL::bigint, chosen, full_.depth, full_.bound, full_.unit,
                    full_.excess, full_.settled, full_.age;
                kinds[i] := NULL;
            END IF;
        END LOOP;
    END;
    RETURN QUERY SELECT i, kinds[i], keys[i], texts[i], NULL::bigint, NULL::bigint, NULL::text, NULL::bigint,
        NULL::bigint, NULL::double precision FROM generate_series(1, total) i WHERE kinds[i] IS NOT NULL;
END $$;

-- These tasks were ended before they ran.
CREATE FUNCTION penstock.end_revoked(p_ids bigint[]) RETURNS void LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    buckets bigint[];
BEGIN
    WITH told AS (
        INSERT INTO penstock.result (bucket, mask, at, worker, size, body)
            SELECT i >> 6, bit_or(1::bigint << (i & 63)::integer), penstock.now(), '', 0, NULL
            FROM unnest(p_ids) i GROUP BY 1 RETURNING bucket
    )
    SELECT array_agg(bucket) INTO buckets FROM told;
    PERFORM penstock.tell(buckets);
END $$;

-- What only a live task has.
CREATE FUNCTION penstock.clear(p_ids bigint[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM penstock.unique_key) THEN
        DELETE FROM penstock.unique_key u WHERE u.id = ANY (p_ids);
    END IF;
    IF EXISTS (SELECT FROM penstock.progress) THEN
        DELETE FROM penstock.progress p WHERE p.id = ANY (p_ids);
    END IF;
    IF EXISTS (SELECT FROM penstock.revoked) THEN
        DELETE FROM penstock.revoked r WHERE r.id = ANY (p_ids);
    END IF;
END $$;

-- Make due tasks ready, behind what is there; returns how many.
CREATE FUNCTION penstock.promote() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    moved bigint := 0;
    base bigint;
    r record;
BEGIN
    IF NOT EXISTS (SELECT FROM penstock.delayed d WHERE d.due <= penstock.now()) THEN
        RETURN 0;
    END IF;
    base := nextval('penstock.block');
    FOR r IN
        WITH gone AS (
            DELETE FROM penstock.delayed d WHERE d.id IN (
                SELECT x.id FROM penstock.delayed x WHERE x.due <= penstock.now()
                ORDER BY x.due LIMIT 1000 FOR UPDATE SKIP LOCKED) RETURNING d.*
        ), ready AS (
            INSERT INTO penstock.task
                SELECT (g.lane::bigint << 45) | (base + row_number() OVER (ORDER BY g.due, g.id)), g.id, g.attempts, g.body
                FROM gone g RETURNING pos
        )
        SELECT l.queue, count(*) AS count FROM ready, penstock.lane l WHERE l.id = (pos >> 45)::integer GROUP BY 1
    LOOP
        moved := moved + r.count;
        PERFORM penstock.ring(r.queue, r.count);
    END LOOP;
    RETURN moved;
END $$;

-- Lease up to p_limit ready tasks. One row for each lane that had some. When none had, one row without a token, with the
-- seconds until the next is due and what tells when all that runs now is over (see bells.py). p_floors, by lane: where to
-- begin, so as not to wade through what was consumed and cannot be vacuumed yet; what is below is found without it.
CREATE FUNCTION penstock.claim(
    p_queues integer[], p_limit integer, p_room bigint, p_worker text, p_lease double precision, p_turn integer[],
    p_floors jsonb, p_process text)
RETURNS TABLE (token bigint, lane integer, ids bigint[], attempts smallint[], bodies bytea[], last bigint,
               due double precision, oldest text, newest text)
LANGUAGE plpgsql AS $$
DECLARE
    l record;
    places tid[];
    sizes bigint[];
    here bigint[];
    size_ bigint;
    taken integer;
    left_ integer := p_limit;
    room bigint := p_room;
    -- Before any look: what commits after this is still running for whoever reads it.
    running text := pg_snapshot_xmin(pg_current_snapshot())::text;
    begun text := pg_snapshot_xmax(pg_current_snapshot())::text;
BEGIN
    IF p_process IS NOT NULL THEN
        DELETE FROM penstock.waiting w WHERE w.process = p_process;
    END IF;
    PERFORM penstock.promote();
    LOOP
    FOR n IN 1..cardinality(p_queues) LOOP
        FOR l IN
            SELECT x.id, greatest(x.id::bigint << 45, (p_floors ->> x.id::text)::bigint) AS low
            FROM penstock.lane x JOIN penstock.queue q ON q.id = x.queue
            WHERE x.queue = p_queues[n] AND NOT q.paused AND EXISTS (
                SELECT FROM penstock.task t WHERE t.pos >= greatest(x.id::bigint << 45, (p_floors ->> x.id::text)::bigint)
                    AND t.pos < (x.id + 1)::bigint << 45)
            ORDER BY x.priority DESC, x.id <= p_turn[n], x.id
        LOOP
            EXIT WHEN left_ <= 0;
            SELECT array_agg(c.ctid), array_agg(c.s), sum(c.s) INTO places, sizes, size_ FROM (
                SELECT t.ctid, octet_length(t.body)::bigint AS s FROM penstock.task t
                WHERE t.pos >= l.low AND t.pos < (l.id + 1)::bigint << 45
                ORDER BY t.pos LIMIT left_ FOR UPDATE SKIP LOCKED) c;
            CONTINUE WHEN places IS NULL;
            IF size_ > room THEN
                size_ := 0;
                taken := 0;
                WHILE taken < cardinality(places) AND size_ + sizes[taken + 1] <= room LOOP
                    taken := taken + 1;
                    size_ := size_ + sizes[taken];
                END LOOP;
                IF taken = 0 THEN
                    IF left_ < p_limit THEN RETURN; END IF;
                    taken := 1;
                    size_ := sizes[1];
                END IF;
                places := places[1:taken];
                left_ := 0;
            END IF;
            WITH gone AS (
                DELETE FROM penstock.task t WHERE t.ctid = ANY (places) RETURNING t.pos, t.id, t.attempts, t.body
            )
            SELECT array_agg(s.pos), array_agg(s.id), array_agg(s.attempts), array_agg(s.body)
                INTO here, ids, attempts, bodies FROM (SELECT * FROM gone ORDER BY pos) s;
            token := nextval('penstock.ticket');
            lane := l.id;
            last := here[cardinality(here)];
            INSERT INTO penstock.lease VALUES (token, p_worker, penstock.now() + p_lease, lane, cardinality(ids), size_,
                here, ids, attempts, bodies);
            IF EXISTS (SELECT FROM penstock.unique_key u WHERE u.on_start) THEN
                UPDATE penstock.unique_key u SET started = true WHERE u.on_start AND u.id = ANY (ids);
            END IF;
            left_ := left_ - cardinality(ids);
            room := room - size_;
            RETURN NEXT;
        END LOOP;
        EXIT WHEN left_ <= 0;
    END LOOP;
    EXIT WHEN p_floors IS NULL OR left_ < p_limit;
    p_floors := NULL;
    END LOOP;
    IF left_ = p_limit THEN
        token := NULL;
        SELECT min(d.due) - penstock.now() INTO due FROM penstock.delayed d;
        oldest := running;
        newest := begun;
        RETURN NEXT;
    END IF;
END $$;

-- Store outcomes, in rows of one bucket each.
CREATE FUNCTION penstock.store(p_buckets bigint[], p_masks bigint[], p_values bytea[], p_worker text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO penstock.result (bucket, mask, at, worker, size, body)
        SELECT u.b, u.m, penstock.now(), p_worker, octet_length(u.v), u.v FROM unnest(p_buckets, p_masks, p_values) u (b, m, v);
    INSERT INTO penstock.delta SELECT 0, cardinality(p_values), sum(octet_length(v)), 0, 0 FROM unnest(p_values) v;
    PERFORM penstock.tell(p_buckets);
END $$;

-- Acknowledge whole leases, with their outcomes. False, and nothing is done, when one of them is lost, or was settled in
-- part.
CREATE FUNCTION penstock.finish(
    p_tokens bigint[], p_counts integer[], p_buckets bigint[], p_masks bigint[], p_values bytea[], p_worker text)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    found_ integer;
BEGIN
    IF EXISTS (SELECT FROM penstock.unique_key) OR EXISTS (SELECT FROM penstock.progress)
        OR EXISTS (SELECT FROM penstock.revoked) THEN
        PERFORM penstock.clear((SELECT array_agg(i) FROM penstock.lease l, unnest(l.ids) i WHERE l.token = ANY (p_tokens)));
    END IF;
    WITH gone AS (
        DELETE FROM penstock.lease l USING unnest(p_tokens, p_counts) u (t, c) WHERE l.token = u.t AND l.count = u.c
        RETURNING l.lane, l.count, l.size
    ), told AS (
        INSERT INTO penstock.delta SELECT x.queue, -sum(g.count), -sum(g.size), 0, sum(g.count)
            FROM gone g JOIN penstock.lane x ON x.id = g.lane GROUP BY x.queue
    )
    SELECT count(*) INTO found_ FROM gone;
    IF found_ <> cardinality(p_tokens) THEN
        RAISE EXCEPTION 'a lease is lost' USING ERRCODE = 'PS002';
    END IF;
    IF cardinality(p_buckets) > 0 THEN
        PERFORM penstock.store(p_buckets, p_masks, p_values, p_worker);
    END IF;
    RETURN true;
EXCEPTION WHEN SQLSTATE 'PS002' THEN
    RETURN false;
END $$;

-- A worker's usual round: acknowledge whole leases, and claim. A lane of -1: a lease is lost, nothing was done. What only
-- claims is not flushed at once: should it be lost, the tasks are ready as before.
CREATE FUNCTION penstock.step(
    p_tokens bigint[], p_counts integer[], p_buckets bigint[], p_masks bigint[], p_values bytea[],
    p_queues integer[], p_limit integer, p_room bigint, p_worker text, p_lease double precision, p_turn integer[],
    p_floors jsonb, p_process text)
RETURNS TABLE (token bigint, lane integer, ids bigint[], attempts smallint[], bodies bytea[], last bigint,
               due double precision, oldest text, newest text)
LANGUAGE plpgsql AS $$
BEGIN
    IF p_tokens IS NULL THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    ELSIF NOT penstock.finish(p_tokens, p_counts, p_buckets, p_masks, p_values, p_worker) THEN
        lane := -1;
        RETURN NEXT;
        RETURN;
    END IF;
    IF p_queues IS NOT NULL THEN
        RETURN QUERY SELECT * FROM penstock.claim(p_queues, p_limit, p_room, p_worker, p_lease, p_turn,
            p_floors, p_process);
    END IF;
END $$;

-- Settle deliveries one by one: verdict 'a' ack, 'r' release, 'l' retry at p_whens, 'd' dead for p_reasons. p_seqs are
-- new places for retries. All or nothing: returns the numbers of those whose lease is lost, and then nothing is done.
CREATE FUNCTION penstock.settle(
    p_tokens bigint[], p_ids bigint[], p_verdicts text[], p_whens double precision[], p_charges boolean[],
    p_bodies bytea[], p_reasons text[], p_seqs bigint[],
    p_buckets bigint[], p_masks bigint[], p_values bytea[], p_worker text)
RETURNS integer[] LANGUAGE plpgsql AS $$
DECLARE
    lost integer[] := '{}';
    now_ double precision := penstock.now();
    at_ integer;
    l record;
    body_ bytea;
    old_size bigint;
    q integer;
    ended bigint[] := '{}';
    dropped bigint[] := '{}';
BEGIN
    PERFORM FROM penstock.lease x WHERE x.token = ANY (p_tokens) ORDER BY x.token FOR UPDATE;
    SELECT coalesce(array_agg(u.n), '{}') INTO lost FROM unnest(p_tokens, p_ids) WITH ORDINALITY u (t, i, n)
        WHERE NOT EXISTS (SELECT FROM penstock.lease x WHERE x.token = u.t AND u.i = ANY (x.ids));
    IF cardinality(lost) > 0 THEN
        RETURN lost;
    END IF;
    FOR n IN 1..cardinality(p_tokens) LOOP
        SELECT x.lane, x.pos, x.ids, x.attempts, x.bodies, x.count INTO l FROM penstock.lease x WHERE x.token = p_tokens[n];
        at_ := array_position(l.ids, p_ids[n]);
        SELECT x.queue INTO q FROM penstock.lane x WHERE x.id = l.lane;
        old_size := octet_length(l.bodies[at_]);
        body_ := coalesce(p_bodies[n], l.bodies[at_]);
        IF p_verdicts[n] IN ('r', 'l') AND EXISTS (SELECT FROM penstock.revoked v WHERE v.id = p_ids[n]) THEN
            dropped := dropped || p_ids[n];
            INSERT INTO penstock.delta VALUES (q, -1, -old_size, 0, 1);
        ELSIF p_verdicts[n] = 'r' THEN
            INSERT INTO penstock.task VALUES (l.pos[at_], p_ids[n], l.attempts[at_], body_);
            UPDATE penstock.unique_key u SET started = false WHERE u.id = p_ids[n];
            PERFORM penstock.ring(q, 1);
        ELSIF p_verdicts[n] = 'l' THEN
            IF p_whens[n] > now_ THEN
                INSERT INTO penstock.delayed VALUES (
                    p_ids[n], p_whens[n], l.lane, l.attempts[at_] + p_charges[n]::integer, body_);
            ELSE
                INSERT INTO penstock.task VALUES (
                    (l.lane::bigint << 45) | p_seqs[n], p_ids[n], l.attempts[at_] + p_charges[n]::integer, body_);
            END IF;
            IF octet_length(body_) <> old_size THEN
                INSERT INTO penstock.delta VALUES (q, 0, octet_length(body_) - old_size, 0, 0);
            END IF;
            IF p_whens[n] <= now_ + 15 THEN PERFORM penstock.ring(q, 1); END IF;
        ELSE
            IF p_verdicts[n] = 'd' THEN
                INSERT INTO penstock.dead VALUES (p_ids[n], l.lane, p_reasons[n], now_, l.attempts[at_], body_)
                    ON CONFLICT (id) DO UPDATE SET reason = excluded.reason, died = excluded.died;
            END IF;
            ended := ended || p_ids[n];
            INSERT INTO penstock.delta VALUES (q, -1, -old_size, 0, 1);
        END IF;
        IF l.count = 1 THEN
            DELETE FROM penstock.lease x WHERE x.token = p_tokens[n];
        ELSE
            UPDATE penstock.lease x SET ids[at_] = 0, count = x.count - 1, size = x.size - old_size WHERE x.token = p_tokens[n];
        END IF;
    END LOOP;
    PERFORM penstock.clear(ended || dropped);
    DELETE FROM penstock.progress p WHERE p.id = ANY (p_ids);
    IF cardinality(dropped) > 0 THEN PERFORM penstock.end_revoked(dropped); END IF;
    IF cardinality(p_buckets) > 0 THEN
        PERFORM penstock.store(p_buckets, p_masks, p_values, p_worker);
    END IF;
    RETURN '{}';
END $$;

-- Make what these leases hold ready again, in its old place; of p_charged (numbers), an attempt is counted. With
-- p_expired only leases that have run out. Returns how many tasks came back.
CREATE FUNCTION penstock.give_back(p_tokens bigint[], p_charged bigint[], p_expired boolean) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    back bigint := 0;
    dropped bigint[];
    q integer;
    l record;
BEGIN
    FOR l IN
        DELETE FROM penstock.lease x WHERE x.token IN (
            SELECT y.token FROM penstock.lease y
            WHERE y.token = ANY (p_tokens) AND (NOT p_expired OR y.until <= penstock.now()) FOR UPDATE SKIP LOCKED)
        RETURNING x.*
    LOOP
        SELECT x.queue INTO q FROM penstock.lane x WHERE x.id = l.lane;
        SELECT coalesce(array_agg(v.id), '{}') INTO dropped FROM penstock.revoked v WHERE v.id = ANY (l.ids);
        INSERT INTO penstock.task
            SELECT u.p, u.i, u.a + (u.i = ANY (p_charged))::integer, u.b
            FROM unnest(l.pos, l.ids, l.attempts, l.bodies) u (p, i, a, b) WHERE u.i <> 0 AND NOT u.i = ANY (dropped);
        UPDATE penstock.unique_key u SET started = false WHERE u.id = ANY (l.ids);
        DELETE FROM penstock.progress p WHERE p.id = ANY (l.ids);
        IF cardinality(dropped) > 0 THEN
            INSERT INTO penstock.delta SELECT q, -count(*), -sum(octet_length(u.b)), 0, count(*)
                FROM unnest(l.ids, l.bodies) u (i, b) WHERE u.i = ANY (dropped);
            PERFORM penstock.clear(dropped);
            PERFORM penstock.end_revoked(dropped);
        END IF;
        back := back + l.count;
        PERFORM penstock.ring(q, l.count);
    END LOOP;
    RETURN back;
END $$;

-- Take waiting tasks out: their numbers become REVOKED. Returns how many there were.
CREATE FUNCTION penstock.remove(p_ids bigint[]) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    gone bigint[];
BEGIN
    WITH ready AS (
        DELETE FROM penstock.task t WHERE t.pos IN (
            SELECT x.pos FROM penstock.task x WHERE x.pos = ANY (p_ids) AND x.id = x.pos
            UNION ALL SELECT x.pos FROM penstock.task x WHERE x.id = ANY (p_ids) AND x.id <> x.pos)
        RETURNING t.id, (t.pos >> 45)::integer AS lane, octet_length(t.body) AS size
    ), late AS (
        DELETE FROM penstock.delayed d WHERE d.id = ANY (p_ids) RETURNING d.id, d.lane, octet_length(d.body) AS size
    ), both_ AS (
        SELECT * FROM ready UNION ALL SELECT * FROM late
    ), told AS (
        INSERT INTO penstock.delta SELECT l.queue, -count(*), -sum(b.size), 0, count(*)
            FROM both_ b JOIN penstock.lane l ON l.id = b.lane GROUP BY l.queue
    )
    SELECT array_agg(id) INTO gone FROM both_;
    IF gone IS NULL THEN
        RETURN 0;
    END IF;
    PERFORM penstock.clear(gone);
    PERFORM penstock.end_revoked(gone);
    RETURN cardinality(gone);
END $$;

-- Member p_index of a join came with p_value: all values in order once p_size are there, else null.
CREATE FUNCTION penstock.gather(p_name text, p_index integer, p_value bytea, p_size integer) RETURNS bytea[]
LANGUAGE plpgsql AS $$
DECLARE
    values_ bytea[];
BEGIN
    INSERT INTO penstock.gathering VALUES (p_name, NULL) ON CONFLICT DO NOTHING;
    PERFORM FROM penstock.gathering g WHERE g.name = p_name AND g.closed IS NULL FOR UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    INSERT INTO penstock.gathered VALUES (p_name, p_index, p_value) ON CONFLICT DO NOTHING;
    IF NOT FOUND OR (SELECT count(*) FROM penstock.gathered v WHERE v.name = p_name) < p_size THEN
        RETURN NULL;
    END IF;
    SELECT array_agg(v.value ORDER BY v.index) INTO values_ FROM penstock.gathered v WHERE v.name = p_name;
    DELETE FROM penstock.gathered v WHERE v.name = p_name;
    UPDATE penstock.gathering g SET closed = penstock.now() WHERE g.name = p_name;
    RETURN values_;
END $$;

-- Set or (null) delete a value; its new version, or null when p_if is not the present one.
CREATE FUNCTION penstock.put(p_key text, p_value bytea, p_if bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    present bigint;
    version_ bigint := nextval('penstock.ticket');
BEGIN
    PERFORM pg_advisory_xact_lock(7362, hashtext(p_key));
    SELECT s.version INTO present FROM penstock.state s WHERE s.key = p_key;
    IF p_if IS NOT NULL AND p_if <> coalesce(present, 0) THEN
        RETURN NULL;
    END IF;
    IF p_value IS NULL THEN
        DELETE FROM penstock.state s WHERE s.key = p_key;
        RETURN 0;
    END IF;
    INSERT INTO penstock.state VALUES (p_key, p_value, version_)
        ON CONFLICT (key) DO UPDATE SET value = excluded.value, version = excluded.version;
    RETURN version_;
END $$;

-- Add what was appended to the counts.
CREATE FUNCTION penstock.fold() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF pg_try_advisory_xact_lock(7363, 0) THEN
        WITH gone AS (DELETE FROM penstock.delta RETURNING *), sums AS (
            SELECT queue, sum(count) AS count, sum(bytes) AS bytes, sum(enqueued) AS enqueued, sum(settled) AS settled
            FROM gone GROUP BY queue)
        UPDATE penstock.queue q SET count = q.count + s.count, bytes = q.bytes + s.bytes,
            enqueued = q.enqueued + s.enqueued, settled = q.settled + s.settled
        FROM sums s WHERE s.queue = q.id;
    END IF;
END $$;

-- Forget what is old: results by age and bytes, chosen ids, ledgers; a bounded part at a time. Returns how many rows.
CREATE FUNCTION penstock.expire(p_expires double precision, p_max_bytes bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    now_ double precision := penstock.now();
    excess bigint;
    rows_ bigint;
    n bigint;
BEGIN
    IF NOT pg_try_advisory_xact_lock(7363, 1) THEN
        RETURN 0;
    END IF;
    SELECT q.bytes + coalesce((SELECT sum(d.bytes) FROM penstock.delta d WHERE d.queue = 0), 0) - p_max_bytes
        INTO excess FROM penstock.queue q WHERE q.id = 0;
    WITH old AS (
        SELECT r.nr, r.size, r.at, sum(r.size) OVER (ORDER BY r.nr) - r.size AS before_
        FROM (SELECT x.nr, x.size, x.at FROM penstock.result x ORDER BY x.nr LIMIT 1000) r
    ), gone AS (
        DELETE FROM penstock.result r USING old o
            WHERE r.nr = o.nr AND (o.at < now_ - p_expires OR o.before_ < excess) RETURNING r.size, r.body IS NULL AS bare
    ), told AS (
        INSERT INTO penstock.delta SELECT 0, -count(*) FILTER (WHERE NOT bare), -coalesce(sum(size), 0), 0, 0
            FROM gone HAVING count(*) > 0
    )
    SELECT count(*) INTO rows_ FROM gone;
    DELETE FROM penstock.alias a WHERE a.name IN (
        SELECT x.name FROM penstock.alias x WHERE x.at < now_ - p_expires ORDER BY x.at LIMIT 1000)
        AND NOT penstock.known(a.id, false);
    GET DIAGNOSTICS n = ROW_COUNT;
    DELETE FROM penstock.sent s WHERE s.first IN (
        SELECT x.first FROM penstock.sent x WHERE x.at < now_ - 600 ORDER BY x.at LIMIT 5000);
    DELETE FROM penstock.unique_key u WHERE u.until <= now_;
    DELETE FROM penstock.dedup d WHERE d.until <= now_;
    DELETE FROM penstock.gathering g WHERE g.closed < now_ - 86400;
    DELETE FROM penstock.revoked_name v WHERE v.at < now_ - p_expires;
    DELETE FROM penstock.worker w WHERE w.until <= now_;
    DELETE FROM penstock.waiting w WHERE w.until <= now_;
    DELETE FROM penstock.watching w WHERE w.until <= now_;
    RETURN rows_ + n;
END $$;

-- What somebody does about every second: promote, fold, and find the leases that ran out. Returns how many tasks became
-- ready.
CREATE FUNCTION penstock.reap(OUT moved bigint, OUT tokens bigint[], OUT workers text[]) LANGUAGE plpgsql AS $$
BEGIN
    moved := penstock.promote();
    SELECT array_agg(x.token), array_agg(x.worker) INTO tokens, workers FROM (
        SELECT l.token, l.worker FROM penstock.lease l WHERE l.until <= penstock.now() ORDER BY l.until LIMIT 200) x;
    IF EXISTS (SELECT FROM penstock.delta) THEN
        PERFORM penstock.fold();
    END IF;
END $$;
