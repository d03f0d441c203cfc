-- Limits: how fast, and how many at a time, the messages of one key are handed out. A limited message waits in a lane of its
-- limit, so that it holds up nobody else. What is decided here, and why, is written in penstock/limiting.py.

-- `line` is the moment at which a full burst is there again; `opens`, the one before which none of these may go, since
-- `lowest` is the smallest cost that any has had. `varied`: some cost something else than 1. `used`: lately, to a minute.
CREATE TABLE penstock.limiter (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    namespace text NOT NULL, name text NOT NULL,
    rate double precision, burst double precision NOT NULL, concurrency integer,
    lowest double precision NOT NULL, varied boolean NOT NULL,
    line double precision NOT NULL DEFAULT 0, used double precision NOT NULL,
    opens double precision GENERATED ALWAYS AS (
        CASE WHEN rate IS NULL THEN 0 ELSE line - greatest(0, burst - lowest) / rate END) STORED,
    UNIQUE (namespace, name)) WITH (fillfactor = 50);
CREATE INDEX limiter_used ON penstock.limiter (used);

-- What a limited task costs, where that is not 1.
CREATE TABLE penstock.cost (id bigint PRIMARY KEY, cost double precision NOT NULL);

-- 0: no limit.
ALTER TABLE penstock.lane ADD limiter integer NOT NULL DEFAULT 0;
ALTER TABLE penstock.lane DROP CONSTRAINT lane_queue_priority_partition_key;
ALTER TABLE penstock.lane ADD UNIQUE (queue, priority, partition, limiter);
CREATE INDEX lane_limiter ON penstock.lane (limiter) WHERE limiter <> 0;
ALTER TABLE penstock.lease ADD limited boolean NOT NULL DEFAULT false;
CREATE INDEX lease_limited ON penstock.lease (lane) WHERE limited;

-- How many more of a limiter's tasks may be leased at a time; null: as many as there are.
CREATE FUNCTION penstock.places(p_limiter integer) RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT m.concurrency - (SELECT coalesce(sum(e.count), 0) FROM penstock.lane x JOIN penstock.lease e ON e.lane = x.id
        WHERE x.limiter = p_limiter AND x.limiter <> 0 AND e.limited)::bigint
    FROM penstock.limiter m WHERE m.id = p_limiter
$$;

-- How many of the first tasks of a lane may go at p_now: up to p_most; and, where that is 0 though there are some, when the
-- next may (null: when a leased one has ended). The limiter stays locked, so that nobody else decides meanwhile; who finds
-- it locked leaves the lane alone for a moment: claims that wait for each other's limiters would never end.
CREATE FUNCTION penstock.fit(
    p_limiter integer, p_lane integer, p_low bigint, p_most integer, p_now double precision,
    OUT fits integer, OUT opens double precision) LANGUAGE plpgsql AS $$
DECLARE
    m record;
    costs double precision[];
    cost double precision := 1;
    line double precision;
BEGIN
    fits := 0;
    IF penstock.places(p_limiter) <= 0 THEN
        RETURN;
    END IF;
    SELECT x.* INTO m FROM penstock.limiter x WHERE x.id = p_limiter FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        opens := p_now;
        RETURN;
    END IF;
    p_most := greatest(0, least(p_most, penstock.places(p_limiter)));
    IF m.rate IS NULL THEN
        fits := p_most;
        RETURN;
    END IF;
    IF m.varied THEN
        costs := ARRAY(SELECT coalesce(c.cost, 1) FROM (
            SELECT t.pos, t.id FROM penstock.task t WHERE t.pos >= p_low AND t.pos < (p_lane + 1)::bigint << 45
            ORDER BY t.pos LIMIT p_most) w LEFT JOIN penstock.cost c ON c.id = w.id ORDER BY w.pos);
        p_most := cardinality(costs);
    END IF;
    line := m.line;
    WHILE fits < p_most LOOP
        IF m.varied THEN
            cost := costs[fits + 1];
        END IF;
        opens := line - greatest(0, m.burst - cost) / m.rate;
        EXIT WHEN opens > p_now + 1e-6;
        line := greatest(line, p_now - 0.05) + cost / m.rate;
        fits := fits + 1;
    END LOOP;
END $$;

-- These are handed out: they are to be paid.
CREATE FUNCTION penstock.pay(p_limiter integer, p_ids bigint[], p_now double precision) RETURNS void LANGUAGE sql AS $$
    UPDATE penstock.limiter m SET
        line = CASE WHEN m.rate IS NULL THEN 0 ELSE greatest(m.line, p_now - 0.05) + (
            CASE WHEN m.varied THEN (SELECT sum(coalesce(c.cost, 1)) FROM unnest(p_ids) i LEFT JOIN penstock.cost c ON c.id = i)
            ELSE cardinality(p_ids) END) / m.rate END,
        used = CASE WHEN m.used < p_now - 60 THEN p_now ELSE m.used END
    WHERE m.id = p_limiter AND (m.rate IS NOT NULL OR m.used < p_now - 60)
$$;

-- Wake up to p_count sleepers of each queue in which tasks of this limiter wait.
CREATE FUNCTION penstock.ring_limited(p_limiter integer, p_count bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM penstock.ring(y.queue, p_count) FROM (
        SELECT DISTINCT x.queue FROM penstock.lane x WHERE x.limiter = p_limiter AND x.limiter <> 0 AND EXISTS (
            SELECT FROM penstock.task t WHERE t.pos >= x.id::bigint << 45 AND t.pos < (x.id + 1)::bigint << 45)) y;
END $$;

-- Of what was leased from these lanes, something has ended.
CREATE FUNCTION penstock.freed(p_lanes integer[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM penstock.ring_limited(m.id, penstock.places(m.id)) FROM penstock.limiter m
        WHERE m.id = ANY (ARRAY(SELECT x.limiter FROM penstock.lane x WHERE x.id = ANY (p_lanes)))
        AND m.concurrency IS NOT NULL AND penstock.places(m.id) > 0;
END $$;

-- What the newest messages say of their limits: p_limits is [[message, namespace, key, rate, burst, concurrency, lowest
-- cost, varied], …], in one order for everybody. Left out are messages that were refused (p_refused, by their numbers).
-- What was handed out is still to be paid, at the new rate.
CREATE FUNCTION penstock.set_limits(p_limits jsonb, p_refused text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    now_ double precision := penstock.now();
    m record;
    r record;
BEGIN
    FOR r IN SELECT (e ->> 0)::integer AS n, e ->> 1 AS namespace, e ->> 2 AS name, (e ->> 3)::double precision AS rate,
            (e ->> 4)::double precision AS burst, (e ->> 5)::integer AS concurrency,
            (e ->> 6)::double precision AS lowest, (e ->> 7)::boolean AS varied FROM jsonb_array_elements(p_limits) e LOOP
        CONTINUE WHEN p_refused[r.n] IS NOT NULL;
        SELECT x.* INTO m FROM penstock.limiter x WHERE x.namespace = r.namespace AND x.name = r.name;
        CONTINUE WHEN m.rate IS NOT DISTINCT FROM r.rate AND m.burst = r.burst AND m.lowest <= r.lowest
            AND m.concurrency IS NOT DISTINCT FROM r.concurrency AND m.varied >= r.varied AND m.used > now_ - 60;
        UPDATE penstock.limiter x SET
            rate = r.rate, burst = r.burst, concurrency = r.concurrency, used = now_,
            lowest = least(x.lowest, r.lowest), varied = x.varied OR r.varied,
            line = CASE WHEN r.rate IS NULL OR x.rate IS NULL THEN 0
                WHEN x.line > now_ THEN now_ + (x.line - now_) * x.rate / r.rate ELSE x.line END
            WHERE x.namespace = r.namespace AND x.name = r.name;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'a limit that nobody used was removed' USING ERRCODE = 'PS003';
        END IF;
        IF (m.rate, m.burst, m.concurrency) IS DISTINCT FROM (r.rate, r.burst, r.concurrency) THEN
            PERFORM penstock.ring_limited(m.id, 64);
        END IF;
    END LOOP;
END $$;

-- Forget limits that nobody used for an hour, with their lanes: all of a limit, or none, since who knows one of them, and
-- finds the limit, does not look for the lane.
CREATE FUNCTION penstock.forget_limits() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    now_ double precision := penstock.now();
    old integer[];
    busy integer[];
BEGIN
    old := ARRAY(SELECT m.id FROM penstock.limiter m WHERE m.used < now_ - 3600 AND m.line < now_ - 0.05
        ORDER BY m.used LIMIT 100 FOR UPDATE SKIP LOCKED);
    IF cardinality(old) = 0 THEN
        RETURN;
    END IF;
    busy := ARRAY(SELECT x.limiter FROM penstock.lane x WHERE x.limiter = ANY (old) AND x.limiter <> 0 AND (
        EXISTS (SELECT FROM penstock.task t WHERE t.pos >= x.id::bigint << 45 AND t.pos < (x.id + 1)::bigint << 45)
        OR EXISTS (SELECT FROM penstock.lease e WHERE e.lane = x.id AND e.limited)
        OR x.id IN (SELECT d.lane FROM penstock.delayed d UNION ALL SELECT d.lane FROM penstock.dead d)));
    UPDATE penstock.limiter m SET used = now_ WHERE m.id = ANY (busy);
    DELETE FROM penstock.lane x WHERE x.limiter = ANY (old) AND x.limiter <> 0 AND NOT x.limiter = ANY (busy);
    DELETE FROM penstock.limiter m WHERE m.id = ANY (old) AND NOT m.id = ANY (busy);
END $$;
