-- What is done beside that: taking back, taking out, joins, shared state, upkeep.

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
