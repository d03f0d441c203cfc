-- Admission: who is refused waits for nobody and writes nothing, and calls that are published together are admitted each by
-- itself, in one transaction. Dead letters: the newest are kept of all, as of those that were shed.

ALTER TABLE penstock.dead ALTER nr SET DEFAULT nextval('penstock.shed');
UPDATE penstock.dead d SET nr = -o.n FROM (
    SELECT x.id, row_number() OVER (ORDER BY x.died DESC) AS n FROM penstock.dead x WHERE x.nr IS NULL) o WHERE d.id = o.id;

-- Drop the oldest dead letters that are too many, a bounded part at a time.
CREATE FUNCTION penstock.drop_dead() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    -- Variables, so that the index is of use.
    newest bigint := (SELECT x.nr FROM penstock.dead x WHERE x.nr IS NOT NULL ORDER BY x.nr DESC LIMIT 1);
    oldest bigint := newest - 100000;
BEGIN
    DELETE FROM penstock.dead d WHERE d.id = ANY (ARRAY(
        SELECT x.id FROM penstock.dead x WHERE x.nr <= oldest ORDER BY x.nr LIMIT 10000 FOR UPDATE SKIP LOCKED));
END $$;

-- A queue, with what is committed of it.
CREATE FUNCTION penstock.level(p_queue integer)
RETURNS TABLE (max_length bigint, max_bytes bigint, overflow text, opened double precision, count bigint, bytes bigint,
               settled bigint)
LANGUAGE sql STABLE AS $$
    SELECT q.max_length, q.max_bytes, q.overflow, q.opened, q.count + coalesce(d.count, 0), q.bytes + coalesce(d.bytes, 0),
        q.settled + coalesce(d.settled, 0)
    FROM penstock.queue q, (
        SELECT sum(x.count)::bigint AS count, sum(x.bytes)::bigint AS bytes, sum(x.settled)::bigint AS settled
        FROM penstock.delta x WHERE x.queue = p_queue) d
    WHERE q.id = p_queue
$$;

-- Whether so much is far from the bound: so far that every connection could bring as much at once. Producers share a lock
-- then. It comes before the look, so that all is seen that was let in by those who had it alone. p_wait: for their commits.
CREATE FUNCTION penstock.share(p_queue integer, p_count bigint, p_size bigint, p_wait boolean) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    most constant bigint := greatest(128, current_setting('max_connections')::bigint);
BEGIN
    IF p_wait THEN
        PERFORM pg_advisory_xact_lock_shared(7361, p_queue);
    ELSIF NOT pg_try_advisory_xact_lock_shared(7361, p_queue) THEN
        RETURN false;
    END IF;
    IF EXISTS (SELECT FROM penstock.level(p_queue) l
            WHERE p_count * most <= l.max_length - l.count AND p_size * most <= l.max_bytes - l.bytes) THEN
        RETURN true;
    END IF;
    RAISE EXCEPTION 'near' USING ERRCODE = 'PS004';  -- nothing else lets go of the lock
EXCEPTION WHEN SQLSTATE 'PS004' THEN
    RETURN false;
END $$;

-- Which of some calls fit, in their order: call n brings p_counts[n] tasks of p_sizes[n] bytes to some of p_lanes. `depth`
-- and `octets` are what the queue holds with those. A queue that sheds makes room for all of them, or for none; p_fresh:
-- what of them is there already. Who does not fit into what is committed is refused by that. Else producers take turns near
-- the bound, and look again. p_turns: false: no locks.
DROP FUNCTION penstock.admit;
CREATE FUNCTION penstock.admit(
    p_queue integer, p_counts bigint[], p_sizes bigint[], p_turns boolean, p_lanes integer[], p_fresh bigint[],
    OUT fits boolean[], OUT depth bigint, OUT octets bigint, OUT max_length bigint, OUT max_bytes bigint,
    OUT sheds boolean, OUT settled bigint, OUT age double precision)
LANGUAGE plpgsql AS $$
DECLARE
    count_ bigint;
    size_ bigint;
    alone boolean := NOT p_turns;
    tasks_ bigint;  -- too many, and bytes
    bytes_ bigint;
    l record;
BEGIN
    LOOP
        SELECT * INTO l FROM penstock.level(p_queue);
        sheds := l.overflow IN ('drop-oldest', 'shed-lowest-priority');
        depth := l.count; octets := l.bytes;
        FOR i IN 1..cardinality(p_counts) LOOP
            fits[i] := depth + p_counts[i] <= l.max_length AND octets + p_sizes[i] <= l.max_bytes;
            IF fits[i] THEN
                depth := depth + p_counts[i]; octets := octets + p_sizes[i];
            END IF;
        END LOOP;
        EXIT WHEN NOT (sheds OR true = ANY (fits));
        IF count_ IS NULL THEN
            SELECT sum(u.c), sum(u.s) INTO count_, size_ FROM unnest(p_counts, p_sizes) u (c, s);
        END IF;
        EXIT WHEN alone;
        -- Who is alone may have been near the bound only: wait for him beside all others, not as one more of his kind.
        EXIT WHEN count_ * 128 <= l.max_length - l.count AND size_ * 128 <= l.max_bytes - l.bytes
            AND penstock.share(p_queue, count_, size_, true);
        PERFORM pg_advisory_xact_lock(7361, p_queue);
        alone := true;
    END LOOP;
    max_length := l.max_length; max_bytes := l.max_bytes;
    settled := l.settled; age := penstock.now() - l.opened;
    tasks_ := l.count + count_ - l.max_length; bytes_ := l.bytes + size_ - l.max_bytes;
    IF sheds AND false = ANY (fits) AND count_ <= l.max_length AND size_ <= l.max_bytes AND penstock.make_room(
            p_queue, l.overflow, greatest(0, least(count_, tasks_)), greatest(0, least(size_, bytes_)), p_lanes, p_fresh,
            CASE WHEN tasks_ > 0 THEN 'tasks' ELSE 'bytes' END,
            CASE WHEN tasks_ > 0 THEN l.max_length ELSE l.max_bytes END) THEN
        fits := array_fill(true, ARRAY[cardinality(p_counts)]);
    END IF;
END $$;

-- What is said of a call of p_count tasks that did not fit.
CREATE FUNCTION penstock.refusal(p_count bigint, p_depth bigint, p_octets bigint, p_length bigint, p_bytes bigint)
RETURNS TABLE (depth bigint, bound bigint, unit text, excess bigint) LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN t.over THEN p_depth ELSE p_octets END, CASE WHEN t.over THEN p_length ELSE p_bytes END,
        CASE WHEN t.over THEN 'tasks' ELSE 'bytes' END, CASE WHEN t.over THEN p_depth + p_count - p_length ELSE p_count END
    FROM (SELECT p_depth + p_count > p_length AS over) t
$$;

-- Publish a batch: see 0008_guards.sql. p_calls: where it is of several calls, that of each message, from 1 on; then each
-- of them fits or does not by itself, and -n is the answer to call n.
DROP FUNCTION penstock.publish;
CREATE FUNCTION penstock.publish(
    p_lanes integer[], p_pos bigint[], p_bodies bytea[], p_ids bigint[], p_names text[], p_dues double precision[],
    p_guards jsonb, p_limits jsonb, p_bound text, p_calls integer[] DEFAULT NULL)
RETURNS TABLE (n integer, kind text, id bigint, name text,
               depth bigint, bound bigint, unit text, excess bigint, settled bigint, age double precision)
LANGUAGE plpgsql AS $$
DECLARE
    q integer;
    size bigint;
    count bigint := cardinality(p_pos);
    counts bigint[];
    sizes bigint[];
    fits boolean[];
    last_ bigint;
    full_ record;
BEGIN
    IF p_ids IS NOT NULL OR p_names IS NOT NULL OR p_dues IS NOT NULL OR p_guards IS NOT NULL
        OR cardinality(p_lanes) > 1 OR p_bound = 'none' THEN
        RETURN QUERY SELECT * FROM penstock.publish_mixed(
            p_lanes, p_pos, p_bodies, p_ids, p_names, p_dues, p_guards, p_limits, p_bound);
        RETURN;
    END IF;
    SELECT l.queue, b.size INTO q, size FROM penstock.lane l, (
        SELECT sum(octet_length(u.b)) AS size FROM unnest(p_bodies) u (b)) b WHERE l.id = p_lanes[1];
    IF q IS NULL THEN
        RAISE EXCEPTION 'a limit that nobody used was removed, with its lanes' USING ERRCODE = 'PS003';
    END IF;
    IF p_bound = 'exact' AND penstock.share(q, count, size, false) THEN
        fits := '{true}';
    ELSE
        counts := ARRAY[count]; sizes := ARRAY[size];
        IF p_calls IS NOT NULL THEN
            SELECT array_agg(u.c ORDER BY u.k), array_agg(u.s ORDER BY u.k) INTO counts, sizes FROM (
                SELECT v.k, count(*) AS c, sum(octet_length(v.b))::bigint AS s
                FROM unnest(p_calls, p_bodies) v (k, b) GROUP BY v.k) u;
        END IF;
        SELECT * INTO full_ FROM penstock.admit(q, counts, sizes, p_bound <> 'soft', p_lanes, '{}');
        fits := full_.fits;
    END IF;
    IF true = ALL (fits) THEN
        INSERT INTO penstock.sent VALUES (p_pos[1], p_pos[count], penstock.now());
    ELSIF full_.sheds AND cardinality(counts) > 1 THEN
        -- There is no room for all; there may be for each, in the place of one before it.
        last_ := 0;
        FOR k IN 1..cardinality(counts) LOOP
            RETURN QUERY SELECT -k, x.kind, x.id, x.name, x.depth, x.bound, x.unit, x.excess, x.settled, x.age
                FROM penstock.publish(p_lanes, p_pos[last_ + 1:last_ + counts[k]], p_bodies[last_ + 1:last_ + counts[k]],
                    NULL, NULL, NULL, NULL, p_limits, p_bound) x;
            last_ := last_ + counts[k];
        END LOOP;
        RETURN;
    ELSE
        RETURN QUERY SELECT CASE WHEN p_calls IS NULL THEN 0 ELSE -u.k::integer END, 'full', NULL::bigint, NULL::text, x.*,
            full_.settled, full_.age
            FROM unnest(fits, counts) WITH ORDINALITY u (f, c, k),
            LATERAL penstock.refusal(u.c, full_.depth, full_.octets, full_.max_length, full_.max_bytes) x WHERE NOT u.f;
        IF NOT true = ANY (fits) THEN
            RETURN;
        END IF;
        -- What was refused is not to be known.
        INSERT INTO penstock.sent SELECT min(u.p), max(u.p), penstock.now() FROM unnest(p_pos, p_calls) u (p, k)
            WHERE fits[u.k] GROUP BY u.k;
        SELECT array_agg(u.p ORDER BY u.p), array_agg(u.b ORDER BY u.p), count(*), sum(octet_length(u.b))
            INTO p_pos, p_bodies, count, size FROM unnest(p_pos, p_bodies, p_calls) u (p, b, k) WHERE fits[u.k];
    END IF;
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

-- The same for messages of which something is to be looked up: see 0012_expired.sql.
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
    looked integer[] := '{}';  -- at these queues, whether they are full
    level record;
    more bigint := 0;  -- messages for it
    refusing integer;  -- this one is, so that nothing is written any more
    -- What takes the place of another needs no room.
    early boolean := p_bound = 'pressed' AND (p_guards IS NULL OR p_guards::text !~ '"(replace|cancel)"');
    due double precision;
    lane_ integer;
    q integer;
    me bigint;
    holder bigint;
    left_ bigint;
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
            left_ := NULL;
            guards := p_guards -> i::text;
            IF chosen IS NOT NULL THEN
                SELECT a.id INTO left_ FROM penstock.alias a WHERE a.name = chosen;
                -- A number without a lane was given to parts or an outcome, and not to a task.
                IF FOUND AND (left_ >> 45 <> 0 OR penstock.known(left_, false)) THEN
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
            IF answer IS NULL AND early AND NOT (
                    chosen IS NOT NULL AND EXISTS (SELECT FROM penstock.revoked_name v WHERE v.name = chosen)) THEN
                SELECT l.queue INTO q FROM penstock.lane l WHERE l.id = lane_;
                IF refusing IS NULL AND NOT q = ANY (looked) THEN
                    looked := looked || q;
                    SELECT v.* INTO level FROM penstock.level(q) v
                        WHERE v.overflow NOT IN ('drop-oldest', 'shed-lowest-priority') AND (v.count >= v.max_length
                            OR v.bytes + octet_length(p_bodies[i]) > v.max_bytes);
                    IF FOUND THEN
                        refusing := q;
                    END IF;
                END IF;
                IF refusing IS NOT NULL THEN
                    more := more + (q = refusing)::integer;
                    fresh := fresh || me;
                    CONTINUE;
                END IF;
            END IF;
            IF answer IS NULL AND chosen IS NOT NULL THEN
                INSERT INTO penstock.alias AS a VALUES (chosen, me, now_)
                    ON CONFLICT (name) DO UPDATE SET id = excluded.id, at = excluded.at WHERE a.id = left_;
                IF NOT FOUND THEN
                    answer := 'duplicate'; holder := NULL;
                ELSIF left_ IS NOT NULL THEN
                    UPDATE penstock.stream s SET id = me WHERE s.id = left_;
                    UPDATE penstock.part p SET id = me WHERE p.id = left_;
                END IF;
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
                        INSERT INTO penstock.cost
                            VALUES (me, (g ->> 3)::double precision, (g ->> 4)::double precision)
                            ON CONFLICT (id) DO UPDATE SET cost = excluded.cost, expires = excluded.expires;
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
        IF refusing IS NOT NULL THEN
            q := refusing;
            SELECT x.*, level.settled, now_ - level.opened AS age INTO full_ FROM penstock.refusal(
                more, level.count, level.bytes, level.max_length, level.max_bytes) x;
            RAISE EXCEPTION 'full' USING ERRCODE = 'PS001';
        END IF;
        FOR r IN SELECT u.q, count(*) AS count, sum(u.s)::bigint AS size, bool_or(u.w) AS wake
                FROM unnest(queues, sizes, wakes) u (q, s, w) GROUP BY u.q ORDER BY u.q LOOP
            IF p_bound <> 'none' AND (p_bound <> 'exact' OR NOT penstock.share(r.q, r.count, r.size, false)) THEN
                SELECT * INTO full_ FROM penstock.admit(r.q, ARRAY[r.count], ARRAY[r.size], p_bound <> 'soft', ARRAY(
                    SELECT p_lanes[CASE WHEN cardinality(p_lanes) = 1 THEN 1 ELSE i END]
                    FROM generate_series(1, total) i WHERE kinds[i] IS NULL), p_pos);
                IF NOT full_.fits[1] THEN
                    q := r.q;
                    SELECT x.*, full_.settled, full_.age INTO full_ FROM penstock.refusal(
                        r.count, full_.depth, full_.octets, full_.max_length, full_.max_bytes) x;
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
