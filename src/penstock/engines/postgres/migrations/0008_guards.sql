-- Publishing, with limits, and with unique keys that newer messages take over.

-- `kept`: only time frees it.
ALTER TABLE penstock.unique_key ADD kept boolean NOT NULL DEFAULT false;

-- Tasks that have ended, and whose keys somebody was about to take, in a transaction that may stay open for long, and be
-- rolled back: those keys are free, whatever becomes of it.
CREATE TABLE penstock.keyless (id bigint PRIMARY KEY);

-- Free the keys of these tasks, waiting for nobody.
CREATE FUNCTION penstock.free_keys(p_ids bigint[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    WITH mine AS (
        SELECT u.namespace, u.name FROM penstock.unique_key u WHERE u.id = ANY (p_ids) AND NOT u.kept
        FOR UPDATE SKIP LOCKED
    )
    DELETE FROM penstock.unique_key u USING mine m WHERE u.namespace = m.namespace AND u.name = m.name;
    INSERT INTO penstock.keyless
        SELECT DISTINCT u.id FROM penstock.unique_key u WHERE u.id = ANY (p_ids) AND NOT u.kept ON CONFLICT DO NOTHING;
END $$;

-- The lane of these names, and of a limit if there is one: p_limit is [key, rate, burst, concurrency, lowest cost, varied].
-- A limit that is there is left as it is (see `set_limits`), but not removed before this transaction ends.
DROP FUNCTION penstock.route;
CREATE FUNCTION penstock.route(
    p_namespace text, p_queue text, p_priority integer, p_partition text, p_length bigint, p_bytes bigint, p_limit jsonb,
    OUT queue integer, OUT lane integer) LANGUAGE plpgsql AS $$
DECLARE
    limiter_ integer := 0;
BEGIN
    SELECT q.id INTO queue FROM penstock.queue q WHERE q.namespace = p_namespace AND q.name = p_queue AND q.id > 0;
    IF NOT FOUND THEN
        INSERT INTO penstock.queue (namespace, name, max_length, max_bytes, opened)
            VALUES (p_namespace, p_queue, p_length, p_bytes, penstock.now()) ON CONFLICT DO NOTHING;
        SELECT q.id INTO queue FROM penstock.queue q WHERE q.namespace = p_namespace AND q.name = p_queue;
    END IF;
    WHILE p_limit IS NOT NULL AND limiter_ = 0 LOOP
        INSERT INTO penstock.limiter (namespace, name, rate, burst, concurrency, lowest, varied, used)
            SELECT p_namespace, p_limit ->> 0, (p_limit ->> 1)::double precision, (p_limit ->> 2)::double precision,
                (p_limit ->> 3)::integer, (p_limit ->> 4)::double precision, (p_limit ->> 5)::boolean, penstock.now()
            WHERE NOT EXISTS (
                SELECT FROM penstock.limiter m WHERE m.namespace = p_namespace AND m.name = p_limit ->> 0)
            ON CONFLICT DO NOTHING;
        SELECT coalesce(max(m.id), 0) INTO limiter_ FROM (
            SELECT x.id FROM penstock.limiter x WHERE x.namespace = p_namespace AND x.name = p_limit ->> 0
            FOR KEY SHARE) m;
    END LOOP;
    FOR look IN 1..2 LOOP
        SELECT l.id INTO lane FROM penstock.lane l WHERE l.queue = route.queue AND l.priority = p_priority
            AND l.partition = p_partition AND l.limiter = limiter_;
        EXIT WHEN FOUND OR look = 2;
        INSERT INTO penstock.lane (queue, priority, partition, limiter)
            VALUES (route.queue, p_priority, p_partition, limiter_) ON CONFLICT DO NOTHING;
    END LOOP;
END $$;

-- Who holds a unique key loses it: if it waits, it ends; if it is leased, it goes on without the key, or (p_cancel) is
-- revoked. Returns who it was.
CREATE FUNCTION penstock.displace(p_namespace text, p_name text, p_cancel boolean) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    holder bigint;
BEGIN
    SELECT u.id INTO holder FROM penstock.unique_key u WHERE u.namespace = p_namespace AND u.name = p_name
        AND NOT u.started AND (u.until IS NULL OR u.until > penstock.now())
        AND NOT EXISTS (SELECT FROM penstock.keyless k WHERE k.id = u.id);
    -- What is claimed at this moment is seen as leased then: removing waits for the claim. The task is locked before its
    -- key, as claims do it.
    IF FOUND AND penstock.remove(ARRAY[holder]) = 0 AND p_cancel THEN
        INSERT INTO penstock.revoked SELECT holder, true, penstock.now() FROM penstock.lease l
            WHERE holder = ANY (l.ids) LIMIT 1 ON CONFLICT (id) DO UPDATE SET terminate = true;
    END IF;
    RETURN holder;
END $$;

-- Publish a batch: message n goes to lane p_lanes[n] (or to the only one) under number p_pos[n]. Returns the answers that
-- are not "accepted"; one of n = 0 is for all. p_ids, p_names, p_dues: where a message has an id or a time of its own;
-- p_guards: {n: [[kind, namespace, key, …], …], …}, see below; p_limits: see `set_limits`. p_bound: 'exact',
-- 'soft' (no locks), or 'none'.
DROP FUNCTION penstock.publish;
CREATE FUNCTION penstock.publish(
    p_lanes integer[], p_pos bigint[], p_bodies bytea[], p_ids bigint[], p_names text[], p_dues double precision[],
    p_guards jsonb, p_limits jsonb, p_bound text)
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
            p_lanes, p_pos, p_bodies, p_ids, p_names, p_dues, p_guards, p_limits, p_bound);
        RETURN;
    END IF;
    SELECT sum(octet_length(b)) INTO size FROM unnest(p_bodies) b;
    SELECT y.id, y.max_length - y.count - d.count, y.max_bytes - y.bytes - d.bytes INTO q, tasks_left, bytes_left
        FROM penstock.lane l JOIN penstock.queue y ON y.id = l.queue, LATERAL (
            SELECT coalesce(sum(x.count)::bigint, 0) AS count, coalesce(sum(x.bytes)::bigint, 0) AS bytes
            FROM penstock.delta x WHERE x.queue = l.queue) d
        WHERE l.id = p_lanes[1];
    IF q IS NULL THEN
        RAISE EXCEPTION 'a limit that nobody used was removed, with its lanes' USING ERRCODE = 'PS003';
    END IF;
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
        IF p_limits IS NOT NULL THEN
            PERFORM penstock.set_limits(p_limits, '{}');
        END IF;
        PERFORM penstock.ring(q, count);
    END IF;
END $$;

-- Guards are ['fence', namespace, name, token], ['dedup', namespace, key, ttl], ['unique', namespace, key, ttl, until, what
-- becomes of the holder], and ['limit', namespace, key, cost] for a limited message that does not cost 1.
DROP FUNCTION penstock.publish_mixed;
CREATE FUNCTION penstock.publish_mixed(
    p_lanes integer[], p_pos bigint[], p_bodies bytea[], p_ids bigint[], p_names text[], p_dues double precision[],
    p_guards jsonb, p_limits jsonb, p_bound text)
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
    guards jsonb;
    g jsonb;
    r record;
BEGIN
    BEGIN
        FOR i IN 1..total LOOP
            lane_ := p_lanes[CASE WHEN cardinality(p_lanes) = 1 THEN 1 ELSE i END];
            me := coalesce(p_ids[i], p_pos[i]);
            chosen := p_names[i];
            answer := NULL;
            guards := p_guards -> i::text;
            IF chosen IS NOT NULL THEN
                IF EXISTS (SELECT FROM penstock.alias a WHERE a.name = chosen) THEN
                    answer := 'duplicate'; holder := NULL;
                END IF;
            ELSIF p_ids[i] IS NOT NULL AND (me = ANY (fresh) OR penstock.known(me, p_bound <> 'none')) THEN
                answer := 'duplicate'; holder := me;
            END IF;
            IF answer IS NULL AND guards IS NOT NULL THEN
                FOR g IN SELECT e FROM jsonb_array_elements(guards) e LOOP
                    holder := NULL;
                    IF g ->> 0 = 'fence' THEN
                        IF NOT EXISTS (SELECT FROM penstock.leader l WHERE l.name = g ->> 2
                                AND l.token = (g ->> 3)::bigint AND l.until > now_) THEN
                            answer := 'fenced';
                        END IF;
                    ELSIF g ->> 0 = 'dedup' THEN
                        SELECT d.id INTO holder FROM penstock.dedup d
                            WHERE d.namespace = g ->> 1 AND d.name = g ->> 2 AND d.until > now_;
                        IF FOUND THEN answer := 'duplicate'; END IF;
                    ELSIF g ->> 0 = 'unique' AND g ->> 5 NOT IN ('replace', 'cancel') THEN
                        SELECT u.id INTO holder FROM penstock.unique_key u WHERE u.namespace = g ->> 1
                            AND u.name = g ->> 2 AND NOT u.started AND (u.until IS NULL OR u.until > now_)
                            AND NOT EXISTS (SELECT FROM penstock.keyless k WHERE k.id = u.id);
                        IF FOUND THEN answer := 'conflict'; END IF;
                    END IF;
                    IF answer IS NOT NULL THEN
                        chosen := CASE WHEN holder IS NULL THEN NULL
                            ELSE (SELECT a.name FROM penstock.alias a WHERE a.id = holder LIMIT 1) END;
                        IF answer <> 'duplicate' THEN texts[i] := g ->> 2; END IF;
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
            IF guards IS NOT NULL THEN
                FOR g IN SELECT e FROM jsonb_array_elements(guards) e LOOP
                    IF g ->> 0 = 'dedup' THEN
                        INSERT INTO penstock.dedup AS d VALUES (g ->> 1, g ->> 2, me, now_ + (g ->> 3)::double precision)
                            ON CONFLICT (namespace, name) DO UPDATE SET id = excluded.id, until = excluded.until
                            WHERE d.until <= now_;
                    ELSIF g ->> 0 = 'unique' THEN
                        IF p_bound = 'none' THEN
                            DELETE FROM penstock.keyless k WHERE k.id = me;  -- a further try of a task that had ended
                        END IF;
                        holder := CASE WHEN g ->> 5 IN ('replace', 'cancel')
                            THEN penstock.displace(g ->> 1, g ->> 2, g ->> 5 = 'cancel') END;
                        INSERT INTO penstock.unique_key AS u VALUES (
                            g ->> 1, g ->> 2, me, now_ + (g ->> 3)::double precision, g ->> 4 = 'start', false, g ->> 4 = 'ttl')
                            ON CONFLICT (namespace, name) DO UPDATE SET id = excluded.id, until = excluded.until,
                                on_start = excluded.on_start, started = false, kept = excluded.kept
                            WHERE u.started OR u.until <= now_ OR u.id = holder
                                OR EXISTS (SELECT FROM penstock.keyless k WHERE k.id = u.id);
                    ELSIF g ->> 0 = 'limit' THEN
                        INSERT INTO penstock.cost VALUES (me, (g ->> 3)::double precision)
                            ON CONFLICT (id) DO UPDATE SET cost = excluded.cost;
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
                    PERFORM penstock.clear(ARRAY[me]);
                    PERFORM penstock.end_revoked(ARRAY[me]);
                    CONTINUE;
                END IF;
            END IF;
            SELECT l.queue INTO q FROM penstock.lane l WHERE l.id = lane_;
            IF NOT FOUND THEN
                RAISE EXCEPTION 'a limit that nobody used was removed, with its lanes' USING ERRCODE = 'PS003';
            END IF;
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
        IF p_limits IS NOT NULL AND p_bound <> 'soft' THEN
            PERFORM penstock.set_limits(p_limits, kinds);
        END IF;
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

-- Publish on any connection: whoever may use the schema may publish, and needs no other right. `p_check`: the hash of the
-- secret of the broker's schema. `p_envelope`: {"routes": [[namespace, queue, priority, partition, bounds…, limit], …],
-- "lanes": [index into routes, …], "sizes": [bytes in p_bodies, …], "ids", "names", "dues", "guards": see `publish`}.
-- Returns one row for each message at least, that of an accepted one with its number; the last one of a message counts.
-- Plans must not hang on statistics, nor names on the caller's settings.
CREATE OR REPLACE FUNCTION penstock.enlist(p_check text, p_envelope text, p_bodies bytea)
RETURNS TABLE (n integer, kind text, id bigint, name text,
               depth bigint, bound bigint, unit text, excess bigint, settled bigint, age double precision)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET jit = off
AS $$
DECLARE
    envelope jsonb := p_envelope;
    base bigint := nextval('penstock.block') - 1;
    routes integer[];
    lanes integer[];
    numbers bigint[];
    bodies bytea[];
    ids bigint[];
    names text[];
    dues double precision[];
    guards jsonb := nullif(envelope -> 'guards', 'null');
BEGIN
    IF NOT EXISTS (SELECT FROM penstock.meta m WHERE m.name = 'secret' AND encode(sha256(m.value), 'hex') = p_check) THEN
        RETURN QUERY SELECT 0, 'stranger', NULL::bigint, NULL::text, NULL::bigint, NULL::bigint, NULL::text,
            NULL::bigint, NULL::bigint, NULL::double precision;
        RETURN;
    END IF;
    SELECT array_agg((SELECT x.lane FROM penstock.route(r ->> 0, r ->> 1, (r ->> 2)::integer, r ->> 3,
            (r ->> 4)::bigint, (r ->> 5)::bigint, nullif(r -> 6, 'null')) x) ORDER BY i)
        INTO routes FROM jsonb_array_elements(envelope -> 'routes') WITH ORDINALITY u (r, i);
    SELECT array_agg(routes[l::integer + 1] ORDER BY i) INTO lanes
        FROM jsonb_array_elements_text(envelope -> 'lanes') WITH ORDINALITY u (l, i);
    SELECT array_agg(l::bigint << 45 | base + i ORDER BY i) INTO numbers FROM unnest(lanes) WITH ORDINALITY u (l, i);
    SELECT array_agg(substring(p_bodies, (1 + upto - size)::integer, size) ORDER BY i) INTO bodies FROM (
        SELECT s::integer AS size, sum(s::integer) OVER (ORDER BY o) AS upto, o
        FROM jsonb_array_elements_text(envelope -> 'sizes') WITH ORDINALITY v (s, o)) u (size, upto, i);
    SELECT array_agg(v::bigint ORDER BY i) INTO ids
        FROM jsonb_array_elements_text(nullif(envelope -> 'ids', 'null')) WITH ORDINALITY u (v, i);
    SELECT array_agg(v ORDER BY i) INTO names
        FROM jsonb_array_elements_text(nullif(envelope -> 'names', 'null')) WITH ORDINALITY u (v, i);
    SELECT array_agg(v::double precision ORDER BY i) INTO dues
        FROM jsonb_array_elements_text(nullif(envelope -> 'dues', 'null')) WITH ORDINALITY u (v, i);
    IF cardinality(routes) = 1 THEN
        lanes := routes;
    END IF;
    RETURN QUERY SELECT u.i::integer, 'accepted', u.p, NULL::text, NULL::bigint, NULL::bigint, NULL::text, NULL::bigint,
        NULL::bigint, NULL::double precision FROM unnest(numbers) WITH ORDINALITY u (p, i);
    IF guards IS NULL AND names IS NULL AND ids IS NULL THEN
        RETURN QUERY SELECT * FROM penstock.publish(lanes, numbers, bodies, ids, names, dues, guards, NULL, 'soft');
        RETURN;
    END IF;
    FOR attempt IN 1..20 LOOP
        BEGIN
            RETURN QUERY SELECT * FROM penstock.publish(lanes, numbers, bodies, ids, names, dues, guards, NULL, 'soft');
            RETURN;
        EXCEPTION WHEN serialization_failure OR unique_violation THEN
            -- Somebody had taken a key, and committed while we waited for him. Where statements see what others commit,
            -- look again; else it is for the caller to repeat the whole transaction.
            IF attempt = 20 OR current_setting('transaction_isolation') IN ('repeatable read', 'serializable') THEN
                RAISE;
            END IF;
        END;
    END LOOP;
END $$;
