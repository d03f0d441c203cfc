-- What tasks publish while they run; joins that count their members.

-- The parts of one task that are kept: from `first` on, before `next`. `run` and `mark` are of the last that were added,
-- `at` is when, to a minute.
CREATE TABLE penstock.stream (
    id bigint PRIMARY KEY, run integer NOT NULL, mark bigint NOT NULL, at double precision NOT NULL,
    first bigint NOT NULL, next bigint NOT NULL, bytes bigint NOT NULL)
    WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
CREATE INDEX stream_at ON penstock.stream (at);
CREATE TABLE penstock.part (
    id bigint NOT NULL, index bigint NOT NULL, run integer NOT NULL, content_type text NOT NULL, value bytea NOT NULL,
    PRIMARY KEY (id, index));
ALTER TABLE penstock.part ALTER value SET STORAGE EXTERNAL;

-- It wants to hear of parts, too.
ALTER TABLE penstock.watching ADD parts boolean NOT NULL DEFAULT false;

-- Add parts to what a task has published; false, and nothing is done, when it has ended, or a run after p_run has added
-- some. A repeat of the last p_mark adds nothing. The newest are kept: p_most, and p_most_bytes of them. Not flushed at
-- once: a crash may lose the last of them.
CREATE FUNCTION penstock.append(
    p_id bigint, p_run integer, p_mark bigint, p_values bytea[], p_types text[], p_most bigint, p_most_bytes bigint)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    now_ double precision := penstock.now();
    s record;
    before_ bigint;
    size bigint;
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    IF penstock.has_result(p_id) OR EXISTS (SELECT FROM penstock.dead d WHERE d.id = p_id) THEN
        RETURN false;
    END IF;
    INSERT INTO penstock.stream VALUES (p_id, 0, -1, now_, 0, 0, 0) ON CONFLICT DO NOTHING;
    SELECT x.* INTO s FROM penstock.stream x WHERE x.id = p_id FOR UPDATE;
    IF NOT FOUND OR s.run > p_run THEN
        RETURN false;
    ELSIF s.mark = p_mark THEN
        RETURN true;
    END IF;
    INSERT INTO penstock.part SELECT p_id, s.next + u.n - 1, p_run, u.t, u.v
        FROM unnest(p_values, p_types) WITH ORDINALITY u (v, t, n);
    before_ := s.bytes;
    s.next := s.next + cardinality(p_values);
    s.bytes := s.bytes + (SELECT coalesce(sum(octet_length(v)), 0) FROM unnest(p_values) v);
    IF s.next - s.first > p_most THEN
        s.first := s.next - p_most;
        WITH gone AS (
            DELETE FROM penstock.part p WHERE p.id = p_id AND p.index < s.first RETURNING octet_length(p.value) AS size
        )
        SELECT s.bytes - sum(gone.size) INTO s.bytes FROM gone;
    END IF;
    WHILE s.bytes > p_most_bytes LOOP
        DELETE FROM penstock.part p WHERE p.id = p_id AND p.index = s.first RETURNING octet_length(p.value) INTO size;
        s.first := s.first + 1;
        s.bytes := s.bytes - size;
    END LOOP;
    UPDATE penstock.stream x SET run = p_run, mark = p_mark, first = s.first, next = s.next, bytes = s.bytes,
        at = CASE WHEN x.at < now_ - 60 THEN now_ ELSE x.at END WHERE x.id = p_id;
    INSERT INTO penstock.delta VALUES (0, 0, 0, s.bytes - before_, 0);  -- of the results, what is enqueued are parts
    IF EXISTS (SELECT FROM penstock.watching w WHERE w.parts AND w.until > now_) THEN
        PERFORM pg_notify(penstock.channel(), 'p' || p_id);
    END IF;
    RETURN true;
END $$;

-- Whether it has ended, or nothing is known of a task without parts.
CREATE FUNCTION penstock.is_over(p_id bigint) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN penstock.has_result(p_id) OR EXISTS (SELECT FROM penstock.dead d WHERE d.id = p_id)
        OR NOT (EXISTS (SELECT FROM penstock.stream s WHERE s.id = p_id) OR penstock.known(p_id, false));
END $$;

-- Forget the parts of these tasks.
CREATE FUNCTION penstock.drop_parts(p_ids bigint[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM penstock.stream) THEN
        RETURN;
    END IF;
    WITH gone AS (
        DELETE FROM penstock.stream s WHERE s.id = ANY (p_ids) RETURNING s.bytes
    )
    INSERT INTO penstock.delta SELECT 0, 0, 0, -sum(bytes), 0 FROM gone HAVING count(*) > 0;
    DELETE FROM penstock.part p WHERE p.id = ANY (p_ids);
END $$;

-- Those of these outcomes (see `result`).
CREATE FUNCTION penstock.drop_parts_of(p_buckets bigint[], p_masks bigint[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM penstock.stream) THEN
        PERFORM penstock.drop_parts(ARRAY(
            SELECT s.id FROM unnest(p_buckets, p_masks) u (b, m) JOIN penstock.stream s
                ON s.id BETWEEN u.b << 6 AND (u.b << 6) + 63 AND u.m & (1::bigint << (s.id & 63)::integer) <> 0));
    END IF;
END $$;

-- Those of tasks that left no result, when one would be gone; and, beyond p_max_bytes, the oldest that have ended.
CREATE FUNCTION penstock.expire_parts(p_expires double precision, p_max_bytes bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    excess bigint;
BEGIN
    IF NOT EXISTS (SELECT FROM penstock.stream) THEN
        RETURN;
    END IF;
    SELECT q.enqueued + coalesce((SELECT sum(d.enqueued) FROM penstock.delta d WHERE d.queue = 0), 0) - p_max_bytes
        INTO excess FROM penstock.queue q WHERE q.id = 0;
    PERFORM penstock.drop_parts(ARRAY(
        SELECT s.id FROM (
            SELECT x.id, x.at, sum(x.bytes) OVER (ORDER BY x.at, x.id) - x.bytes AS before_
            FROM (SELECT y.id, y.at, y.bytes FROM penstock.stream y ORDER BY y.at LIMIT 1000) x) s
        WHERE (s.before_ < excess AND (penstock.has_result(s.id) OR NOT penstock.known(s.id, false)))
            OR (s.at < penstock.now() - p_expires - 60 AND NOT penstock.known(s.id, false))));
END $$;

-- What only a live task has.
CREATE OR REPLACE FUNCTION penstock.clear(p_ids bigint[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM penstock.unique_key) THEN
        PERFORM penstock.free_keys(p_ids);
    END IF;
    IF EXISTS (SELECT FROM penstock.progress) THEN
        DELETE FROM penstock.progress p WHERE p.id = ANY (p_ids);
    END IF;
    IF EXISTS (SELECT FROM penstock.revoked) THEN
        DELETE FROM penstock.revoked r WHERE r.id = ANY (p_ids);
    END IF;
    IF EXISTS (SELECT FROM penstock.cost) THEN
        DELETE FROM penstock.cost c WHERE c.id = ANY (p_ids)
            AND NOT EXISTS (SELECT FROM penstock.dead d WHERE d.id = c.id);  -- it may be put back
    END IF;
END $$;

-- Forget what is old: results by age and bytes, with their parts, chosen ids, limits, ledgers; a bounded part at a time.
-- Returns how many rows.
CREATE OR REPLACE FUNCTION penstock.expire(p_expires double precision, p_max_bytes bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    now_ double precision := penstock.now();
    excess bigint;
    rows_ bigint;
    n bigint;
    buckets bigint[];
    masks bigint[];
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
            WHERE r.nr = o.nr AND (o.at < now_ - p_expires OR o.before_ < excess)
            RETURNING r.bucket, r.mask, r.size, r.body IS NULL AS bare
    ), told AS (
        INSERT INTO penstock.delta SELECT 0, -count(*) FILTER (WHERE NOT bare), -coalesce(sum(size), 0), 0, 0
            FROM gone HAVING count(*) > 0
    )
    SELECT count(*), array_agg(bucket), array_agg(mask) INTO rows_, buckets, masks FROM gone;
    PERFORM penstock.drop_parts_of(buckets, masks);
    PERFORM penstock.expire_parts(p_expires, p_max_bytes);
    DELETE FROM penstock.alias a WHERE a.name IN (
        SELECT x.name FROM penstock.alias x WHERE x.at < now_ - p_expires ORDER BY x.at LIMIT 1000)
        AND NOT penstock.known(a.id, false) AND NOT EXISTS (SELECT FROM penstock.stream s WHERE s.id = a.id);
    GET DIAGNOSTICS n = ROW_COUNT;
    DELETE FROM penstock.sent s WHERE s.first IN (
        SELECT x.first FROM penstock.sent x WHERE x.at < now_ - 600 ORDER BY x.at LIMIT 5000);
    DELETE FROM penstock.unique_key u WHERE u.ctid = ANY (ARRAY(
        SELECT x.ctid FROM penstock.unique_key x WHERE x.until <= now_ FOR UPDATE SKIP LOCKED));
    IF EXISTS (SELECT FROM penstock.keyless) THEN
        PERFORM penstock.free_keys(ARRAY(SELECT k.id FROM penstock.keyless k));
        DELETE FROM penstock.keyless k WHERE NOT EXISTS (SELECT FROM penstock.unique_key u WHERE u.id = k.id);
    END IF;
    DELETE FROM penstock.dedup d WHERE d.ctid = ANY (ARRAY(
        SELECT x.ctid FROM penstock.dedup x WHERE x.until <= now_ FOR UPDATE SKIP LOCKED));
    PERFORM penstock.forget_limits();
    DELETE FROM penstock.gathering g WHERE g.closed < now_ - 86400;
    DELETE FROM penstock.revoked_name v WHERE v.at < now_ - p_expires;
    DELETE FROM penstock.worker w WHERE w.until <= now_;
    DELETE FROM penstock.waiting w WHERE w.until <= now_;
    DELETE FROM penstock.watching w WHERE w.until <= now_;
    RETURN rows_ + n;
END $$;

-- Members of a join came with their values: all values in order once p_size are there, else null.
ALTER TABLE penstock.gathering ADD count integer NOT NULL DEFAULT 0;
UPDATE penstock.gathering g SET count = (SELECT count(*) FROM penstock.gathered v WHERE v.name = g.name);
DROP FUNCTION penstock.gather;
CREATE FUNCTION penstock.gather(p_name text, p_indexes integer[], p_values bytea[], p_size integer) RETURNS bytea[]
LANGUAGE plpgsql AS $$
DECLARE
    fresh integer;
    there integer;
    values_ bytea[];
BEGIN
    INSERT INTO penstock.gathering (name) VALUES (p_name) ON CONFLICT DO NOTHING;
    PERFORM FROM penstock.gathering g WHERE g.name = p_name AND g.closed IS NULL FOR UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    INSERT INTO penstock.gathered SELECT p_name, u.i, u.v FROM unnest(p_indexes, p_values) u (i, v) ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS fresh = ROW_COUNT;
    UPDATE penstock.gathering g SET count = g.count + fresh WHERE g.name = p_name RETURNING g.count INTO there;
    IF fresh = 0 OR there < p_size THEN
        RETURN NULL;
    END IF;
    SELECT array_agg(v.value ORDER BY v.index) INTO values_ FROM penstock.gathered v WHERE v.name = p_name;
    DELETE FROM penstock.gathered v WHERE v.name = p_name;
    UPDATE penstock.gathering g SET closed = penstock.now() WHERE g.name = p_name;
    RETURN values_;
END $$;
