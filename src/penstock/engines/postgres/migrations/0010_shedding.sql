-- Full queues that make room, as penstock/shedding.py has it: what of it is asked of the server.

-- `overflow`: what becomes of a publish that does not fit. `shed`: how many tasks made room.
ALTER TABLE penstock.queue ADD overflow text NOT NULL DEFAULT 'reject', ADD shed bigint NOT NULL DEFAULT 0;
ALTER TABLE penstock.delta ADD shed bigint NOT NULL DEFAULT 0;
-- It was handed out before.
ALTER TABLE penstock.task ADD back boolean NOT NULL DEFAULT false;
-- In the place of a reason, of what was shed: the policy, the unit, the limit and the priority; and its number, by which the
-- oldest go when there are too many.
ALTER TABLE penstock.dead ADD mark text, ADD nr bigint;
CREATE SEQUENCE penstock.shed;
CREATE INDEX dead_shed ON penstock.dead (nr) WHERE nr IS NOT NULL;

-- Where the MessagePack value begins that is p_count values after the one at p_at; null where there is none. The last 8
-- bytes of p_data are not part of it.
CREATE FUNCTION penstock.after(p_data bytea, p_at bigint, p_count bigint) RETURNS bigint
LANGUAGE plpgsql IMMUTABLE STRICT AS $$
DECLARE
    size bigint := octet_length(p_data) - 8;
    b integer;
    width integer;  -- of the number behind the first byte
    number bigint;
BEGIN
    WHILE p_count > 0 LOOP
        IF p_at >= size THEN
            RETURN NULL;
        END IF;
        b := get_byte(p_data, p_at::integer);
        p_at := p_at + 1;
        p_count := p_count - 1;
        CONTINUE WHEN b < 128 OR b >= 224 OR b IN (192, 194, 195);
        IF b = 193 OR b BETWEEN 199 AND 201 OR b BETWEEN 212 AND 216 THEN
            RETURN NULL;  -- nothing of ours has such a type
        ELSIF b < 192 THEN
            IF b >= 160 THEN p_at := p_at + (b & 31);
            ELSIF b >= 144 THEN p_count := p_count + (b & 15);
            ELSE p_count := p_count + 2 * (b & 15);
            END IF;
        ELSIF b BETWEEN 202 AND 211 THEN
            p_at := p_at + (CASE WHEN b < 204 THEN 4 << (b - 202) ELSE 1 << (b & 3) END);
        ELSE
            width := CASE WHEN b < 199 THEN 1 << (b - 196) WHEN b BETWEEN 217 AND 219 THEN 1 << (b - 217)
                WHEN b IN (220, 222) THEN 2 WHEN b IN (221, 223) THEN 4 END;
            number := 0;
            FOR i IN 1..width LOOP
                number := number << 8 | get_byte(p_data, p_at::integer);
                p_at := p_at + 1;
            END LOOP;
            IF b < 220 THEN p_at := p_at + number;
            ELSIF b < 222 THEN p_count := p_count + number;
            ELSE p_count := p_count + 2 * number;
            END IF;
        END IF;
    END LOOP;
    RETURN CASE WHEN p_at <= size THEN p_at END;
END $$;

-- The bytes of the MessagePack string between these places.
CREATE FUNCTION penstock.string_in(p_data bytea, p_from bigint, p_to bigint) RETURNS bytea LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    p_from := p_from + CASE get_byte(p_data, p_from::integer) WHEN 217 THEN 3 WHEN 218 THEN 4 WHEN 219 THEN 6 ELSE 2 END;
    RETURN substring(p_data FROM p_from::integer FOR (p_to - p_from + 1)::integer);
END $$;

-- The task's name of a waiting message, and whether its end is told; null for what must not be shed: it was begun, is part
-- of a canvas, or cannot be read.
CREATE FUNCTION penstock.may_go(p_body bytea, OUT task bytea, OUT told boolean) LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    m bytea := p_body || '\x0000000000000000';
    name bigint := penstock.after(m, 3, 1);
    body bigint := penstock.after(m, name, 1);
    id bigint := penstock.after(m, body, 1);
    retries bigint := penstock.after(m, id, 7);
    options bigint := penstock.after(m, retries, 4);
    headers bigint;
    next_ bigint;
BEGIN
    told := true;
    IF options IS NULL OR get_byte(m, 0) <> 220 OR get_byte(m, retries::integer) <> 0
        OR get_byte(m, retries::integer + 1) <> 0 THEN
        RETURN;
    END IF;
    IF get_byte(m, id::integer) <> 192 AND encode(penstock.string_in(m, id, penstock.after(m, id, 1)), 'escape')
        ~ '^[0-9a-f]{32}\.(begin|[0-9]{1,9})$' THEN
        RETURN;
    END IF;
    headers := options + 1;
    IF get_byte(m, options::integer) <> 192 THEN
        next_ := penstock.after(m, options + 1, 2);
        headers := penstock.after(m, next_, 4);
        IF headers IS NULL OR get_byte(m, headers::integer) <> 192 THEN
            RETURN;
        END IF;
        told := get_byte(m, next_::integer) <> 195;
        headers := headers + 1;
    END IF;
    next_ := penstock.after(m, headers, 1);
    IF next_ IS NULL THEN
        RETURN;
    END IF;
    IF get_byte(m, headers::integer) <> 192 THEN
        headers := headers + CASE get_byte(m, headers::integer) WHEN 222 THEN 3 WHEN 223 THEN 5 ELSE 1 END;
        WHILE headers < next_ LOOP
            IF penstock.string_in(m, headers, penstock.after(m, headers, 1)) LIKE 'penstock-%'::bytea THEN
                RETURN;
            END IF;
            headers := penstock.after(m, headers, 2);
        END LOOP;
    END IF;
    task := penstock.string_in(m, name, body);
END $$;

-- The places of what may go from a queue, who goes first first: `some` of each lane, of 256 lanes at most. p_floors, by
-- lane: where to begin, so as not to wade through what was consumed and cannot be vacuumed yet; `floors`: where they do.
CREATE FUNCTION penstock.oldest(p_queue integer, p_some bigint, p_floors jsonb, OUT places bigint[], OUT floors jsonb)
LANGUAGE plpgsql STABLE AS $$
BEGIN
    WITH found AS MATERIALIZED (
        SELECT l.id AS lane, t.pos FROM (SELECT x.id FROM penstock.lane x WHERE x.queue = p_queue LIMIT 256) l
        CROSS JOIN LATERAL (
            SELECT s.pos FROM penstock.task s WHERE s.pos < (l.id + 1)::bigint << 45
                AND s.pos >= greatest(l.id::bigint << 45, (p_floors ->> l.id::text)::bigint)
            ORDER BY s.pos LIMIT p_some) t
    )
    SELECT (SELECT array_agg(f.pos ORDER BY f.pos & ((1::bigint << 45) - 1)) FROM found f),
        (SELECT jsonb_object_agg(m.lane, m.pos) FROM (SELECT f.lane, min(f.pos) AS pos FROM found f GROUP BY f.lane) m)
        INTO places, floors;
END $$;

CREATE FUNCTION penstock.lowest(p_queue integer, p_some bigint, p_priority integer) RETURNS bigint[]
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (SELECT array_agg(t.pos ORDER BY l.priority, t.pos & ((1::bigint << 45) - 1) DESC) FROM (
        SELECT x.id, x.priority FROM penstock.lane x WHERE x.queue = p_queue AND x.priority < p_priority
        ORDER BY x.priority LIMIT 256) l
    CROSS JOIN LATERAL (
        SELECT s.pos FROM penstock.task s WHERE s.pos >= l.id::bigint << 45 AND s.pos < (l.id + 1)::bigint << 45
        ORDER BY s.pos DESC LIMIT p_some) t);
END $$;

-- Whether `p_count` new tasks fit, as in 0002_publishing.sql; and, of a queue that sheds, how many tasks and bytes must leave
-- it: null where that would not do.
DROP FUNCTION penstock.admit;
CREATE FUNCTION penstock.admit(
    p_queue integer, p_count bigint, p_size bigint, p_locked boolean,
    OUT depth bigint, OUT bound bigint, OUT unit text, OUT excess bigint, OUT settled bigint, OUT age double precision,
    OUT policy text, OUT tasks bigint, OUT octets bigint)
LANGUAGE plpgsql AS $$
DECLARE
    level record;
    alone boolean := false;
BEGIN
    LOOP
        SELECT q.max_length, q.max_bytes, q.opened, q.overflow, q.count + coalesce(d.count, 0) AS count,
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
    policy := level.overflow;
    IF unit IS NOT NULL AND policy IN ('drop-oldest', 'shed-lowest-priority')
        AND p_count <= level.max_length AND p_size <= level.max_bytes THEN
        tasks := greatest(0, least(p_count, level.count + p_count - level.max_length));
        octets := greatest(0, least(p_size, level.bytes + p_size - level.max_bytes));
    END IF;
END $$;

-- Let p_tasks tasks, and p_bytes bytes, leave a full queue for what comes into some of p_lanes, or is there already, in the
-- places p_fresh. False, and nothing is done, where that cannot be. p_unit and p_bound: what is full.
CREATE FUNCTION penstock.make_room(
    p_queue integer, p_overflow text, p_tasks bigint, p_bytes bigint, p_lanes integer[], p_fresh bigint[], p_unit text,
    p_bound bigint) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    most constant bigint := 10000;  -- tasks that one publish sheds
    vain constant bigint := 250;  -- tasks that are looked at, and spared
    kept constant bigint := 100000;  -- dead letters of all that was shed
    now_ double precision := penstock.now();
    -- Of this session, for a second: what commits late may be older.
    known jsonb := nullif(current_setting('penstock.floors', true), '')::jsonb;
    c record;
    priority_ integer;
    mark_ text;
    why bytea;
    candidates bigint[];
    place bigint;
    places bigint[];
    ids bigint[];
    told bigint[];
    whys bytea[];
    size bigint;
    each bigint := 1;
    spared bigint;
    oldest_ bigint;
BEGIN
    SELECT min(l.priority) INTO priority_ FROM penstock.lane l WHERE l.id = ANY (p_lanes) AND l.queue = p_queue;
    IF (known ->> 'at')::double precision < now_ - 1 THEN
        known := NULL;
    END IF;
    -- First a few of each lane, which are enough when all of them may go.
    LOOP
        IF p_overflow = 'shed-lowest-priority' THEN
            candidates := penstock.lowest(p_queue, p_tasks + each, priority_);
        ELSE
            SELECT o.places, coalesce(known, jsonb_build_object('at', now_)) || coalesce(o.floors, '{}')
                INTO candidates, known FROM penstock.oldest(p_queue, p_tasks + each, known) o;
            PERFORM set_config('penstock.floors', known::text, false);
            known := NULL;
        END IF;
        places := '{}'; ids := '{}'; told := '{}'; whys := '{}'; size := 0; spared := 0;
        FOREACH place IN ARRAY coalesce(candidates, '{}') LOOP
            EXIT WHEN (cardinality(places) >= p_tasks AND size >= p_bytes) OR spared > vain OR cardinality(places) = most;
            CONTINUE WHEN place = ANY (p_fresh);
            SELECT t.id, octet_length(t.body) AS size, m.task, m.told INTO c
                FROM penstock.task t, LATERAL penstock.may_go(t.body) m
                WHERE t.pos = place AND NOT t.back AND t.attempts = 0 AND m.task IS NOT NULL
                FOR UPDATE OF t SKIP LOCKED;
            IF NOT FOUND THEN  -- or it is being claimed
                spared := spared + 1;
                CONTINUE;
            END IF;
            places := places || place;
            ids := ids || c.id;
            size := size + c.size;
            IF c.told THEN
                told := told || c.id;
                whys := whys || c.task;
            END IF;
        END LOOP;
        EXIT WHEN cardinality(places) >= p_tasks AND size >= p_bytes;
        IF spared > vain OR cardinality(places) = most OR each > most THEN
            RETURN false;
        END IF;
        each := each * 16;
    END LOOP;
    mark_ := concat_ws(' ', p_overflow, p_unit, p_bound, priority_);
    SELECT convert_to('shed ' || mark_ || chr(10) || q.name || chr(10), 'UTF8') INTO why
        FROM penstock.queue q WHERE q.id = p_queue;
    IF ids = '{}' THEN
        RETURN true;
    END IF;
    WITH gone AS (
        DELETE FROM penstock.task t WHERE t.pos = ANY (places) RETURNING t.pos, t.id, t.attempts, t.body
    )
    INSERT INTO penstock.dead (id, lane, reason, died, attempts, body, mark, nr)
        SELECT g.id, (g.pos >> 45)::integer, '', now_, g.attempts, g.body, mark_, nextval('penstock.shed') FROM gone g
        ON CONFLICT (id) DO UPDATE SET reason = '', died = excluded.died, mark = excluded.mark, nr = excluded.nr;
    oldest_ := currval('penstock.shed') - kept;  -- a variable, so that the index is of use
    DELETE FROM penstock.dead d WHERE d.id = ANY (ARRAY(
        SELECT x.id FROM penstock.dead x WHERE x.nr <= oldest_
        ORDER BY x.nr LIMIT 2 * cardinality(ids) FOR UPDATE SKIP LOCKED));
    INSERT INTO penstock.delta VALUES (p_queue, -cardinality(ids), -size, 0, cardinality(ids), cardinality(ids));
    PERFORM penstock.clear(ids);
    IF told <> '{}' THEN
        PERFORM penstock.store(array_agg(u.i >> 6), array_agg(1::bigint << (u.i & 63)::integer), array_agg(why || u.w), '')
            FROM unnest(told, whys) u (i, w);
    END IF;
    RETURN true;
END $$;

-- The lane of these names, and of a limit if there is one: see 0008_guards.sql. A queue that is new has this policy.
DROP FUNCTION penstock.route;
CREATE FUNCTION penstock.route(
    p_namespace text, p_queue text, p_priority integer, p_partition text, p_length bigint, p_bytes bigint, p_limit jsonb,
    p_overflow text DEFAULT 'reject', OUT queue integer, OUT lane integer) LANGUAGE plpgsql AS $$
DECLARE
    limiter_ integer := 0;
BEGIN
    SELECT q.id INTO queue FROM penstock.queue q WHERE q.namespace = p_namespace AND q.name = p_queue AND q.id > 0;
    IF NOT FOUND THEN
        INSERT INTO penstock.queue (namespace, name, max_length, max_bytes, opened, overflow)
            VALUES (p_namespace, p_queue, p_length, p_bytes, penstock.now(), p_overflow) ON CONFLICT DO NOTHING;
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

-- Add what was appended to the counts.
CREATE OR REPLACE FUNCTION penstock.fold() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF pg_try_advisory_xact_lock(7363, 0) THEN
        WITH gone AS (DELETE FROM penstock.delta RETURNING *), sums AS (
            SELECT queue, sum(count) AS count, sum(bytes) AS bytes, sum(enqueued) AS enqueued, sum(settled) AS settled,
                sum(shed) AS shed FROM gone GROUP BY queue)
        UPDATE penstock.queue q SET count = q.count + s.count, bytes = q.bytes + s.bytes,
            enqueued = q.enqueued + s.enqueued, settled = q.settled + s.settled, shed = q.shed + s.shed
        FROM sums s WHERE s.queue = q.id;
    END IF;
END $$;
