-- Publishing into queues that make room when they are full, and handing back into them: see 0010_shedding.sql.

-- Publish a batch: see 0008_guards.sql.
CREATE OR REPLACE FUNCTION penstock.publish(
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
        IF full_.unit IS NOT NULL AND (full_.tasks IS NULL OR NOT penstock.make_room(
                q, full_.policy, full_.tasks, full_.octets, p_lanes, '{}', full_.unit, full_.bound)) THEN
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

CREATE OR REPLACE FUNCTION penstock.publish_mixed(
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
                    IF full_.tasks IS NULL OR NOT penstock.make_room(r.q, full_.policy, full_.tasks, full_.octets, ARRAY(
                            SELECT p_lanes[CASE WHEN cardinality(p_lanes) = 1 THEN 1 ELSE i END]
                            FROM generate_series(1, total) i WHERE kinds[i] IS NULL), p_pos, full_.unit, full_.bound) THEN
                        q := r.q;
                        RAISE EXCEPTION 'full' USING ERRCODE = 'PS001';
                    END IF;
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

-- Settle deliveries one by one, and make what leases hold ready again: see 0007_limited_rounds.sql. What comes back so is
-- `back`.
CREATE OR REPLACE FUNCTION penstock.settle(
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
    limited integer[] := '{}';
BEGIN
    PERFORM FROM penstock.lease x WHERE x.token = ANY (p_tokens) ORDER BY x.token FOR UPDATE;
    SELECT coalesce(array_agg(u.n), '{}') INTO lost FROM unnest(p_tokens, p_ids) WITH ORDINALITY u (t, i, n)
        WHERE NOT EXISTS (SELECT FROM penstock.lease x WHERE x.token = u.t AND u.i = ANY (x.ids));
    IF cardinality(lost) > 0 THEN
        RETURN lost;
    END IF;
    FOR n IN 1..cardinality(p_tokens) LOOP
        SELECT x.lane, x.pos, x.ids, x.attempts, x.bodies, x.count, x.limited INTO l FROM penstock.lease x WHERE x.token = p_tokens[n];
        IF l.limited THEN limited := limited || l.lane; END IF;
        at_ := array_position(l.ids, p_ids[n]);
        SELECT x.queue INTO q FROM penstock.lane x WHERE x.id = l.lane;
        old_size := octet_length(l.bodies[at_]);
        body_ := coalesce(p_bodies[n], l.bodies[at_]);
        IF p_verdicts[n] IN ('r', 'l') AND EXISTS (SELECT FROM penstock.revoked v WHERE v.id = p_ids[n]) THEN
            dropped := dropped || p_ids[n];
            INSERT INTO penstock.delta VALUES (q, -1, -old_size, 0, 1);
        ELSIF p_verdicts[n] = 'r' THEN
            INSERT INTO penstock.task VALUES (l.pos[at_], p_ids[n], l.attempts[at_], body_, true);
            UPDATE penstock.unique_key u SET started = false WHERE u.id = p_ids[n] AND u.started;
            PERFORM penstock.ring(q, 1);
        ELSIF p_verdicts[n] = 'l' THEN
            IF p_whens[n] > now_ THEN
                INSERT INTO penstock.delayed VALUES (
                    p_ids[n], p_whens[n], l.lane, l.attempts[at_] + p_charges[n]::integer, body_);
            ELSE
                INSERT INTO penstock.task VALUES (
                    (l.lane::bigint << 45) | p_seqs[n], p_ids[n], l.attempts[at_] + p_charges[n]::integer, body_, true);
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
    IF limited <> '{}' THEN PERFORM penstock.freed(limited); END IF;
    RETURN '{}';
END $$;

CREATE OR REPLACE FUNCTION penstock.give_back(p_tokens bigint[], p_charged bigint[], p_expired boolean) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    back bigint := 0;
    dropped bigint[];
    q integer;
    l record;
    limited integer[] := '{}';
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
            SELECT u.p, u.i, u.a + (u.i = ANY (p_charged))::integer, u.b, true
            FROM unnest(l.pos, l.ids, l.attempts, l.bodies) u (p, i, a, b) WHERE u.i <> 0 AND NOT u.i = ANY (dropped);
        UPDATE penstock.unique_key u SET started = false WHERE u.id = ANY (l.ids) AND u.started;
        DELETE FROM penstock.progress p WHERE p.id = ANY (l.ids);
        IF cardinality(dropped) > 0 THEN
            INSERT INTO penstock.delta SELECT q, -count(*), -sum(octet_length(u.b)), 0, count(*)
                FROM unnest(l.ids, l.bodies) u (i, b) WHERE u.i = ANY (dropped);
            PERFORM penstock.clear(dropped);
            PERFORM penstock.end_revoked(dropped);
        END IF;
        IF l.limited THEN limited := limited || l.lane; END IF;
        back := back + l.count;
        PERFORM penstock.ring(q, l.count);
    END LOOP;
    IF limited <> '{}' THEN PERFORM penstock.freed(limited); END IF;
    RETURN back;
END $$;
