-- Publishing: where a message goes, whether it fits, who is woken.

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
