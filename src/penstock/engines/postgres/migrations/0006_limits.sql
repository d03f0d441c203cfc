-- Limits: how fast, and how many at a time, the messages of one key are handed out. A limited message waits in a lane of its
-- limit, so that it holds up nobody else. What is decided here, and why, is written in penstock/limiting.py.

-- `lowest` is the smallest cost that any message has had. `varied`: some cost something else than 1. `used`: when, to a
-- minute.
CREATE TABLE penstock.limiter (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    namespace text NOT NULL, name text NOT NULL,
    rate double precision, burst double precision NOT NULL, concurrency integer,
    lowest double precision NOT NULL, varied boolean NOT NULL, used double precision NOT NULL,
    UNIQUE (namespace, name));
CREATE INDEX limiter_used ON penstock.limiter (used);

-- Where the line of a rate stands: the row of the highest `nr`. `line` is the moment at which a full burst is there again;
-- `opens`, the one before which none of these messages may go, whatever it costs. A row that were updated with each claim
-- would be slow to read while an old transaction, of whomever, keeps all of its versions.
CREATE TABLE penstock.meter (
    limiter integer NOT NULL, nr bigint NOT NULL, line double precision NOT NULL, opens double precision NOT NULL,
    PRIMARY KEY (limiter, nr))
    WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);

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

-- Move the line of a limiter, which is locked, from row p_nr (null: there is none) to p_line.
CREATE FUNCTION penstock.move_line(m penstock.limiter, p_nr bigint, p_line double precision) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO penstock.meter VALUES (m.id, nextval('penstock.ticket'), p_line,
        CASE WHEN m.rate IS NULL THEN 0 ELSE p_line - greatest(0, m.burst - m.lowest) / m.rate END);
    DELETE FROM penstock.meter t WHERE t.limiter = m.id AND t.nr = p_nr;
END $$;

-- How many of the first tasks of a lane may go at p_now: up to p_most; and, where that is 0 though there are some, when the
-- next may (null: when a leased one has ended). The limiter stays locked, so that nobody else decides meanwhile; who finds
-- it locked leaves the lane alone for a moment: claims that wait for each other's limiters would never end. `m`, `nr` and
-- `line` are what it is, and where it stands.
CREATE FUNCTION penstock.fit(
    p_limiter integer, p_lane integer, p_low bigint, p_most integer, p_now double precision,
    OUT fits integer, OUT opens double precision, OUT m penstock.limiter, OUT nr bigint, OUT line double precision)
LANGUAGE plpgsql AS $$
DECLARE
    costs double precision[];
    cost double precision := 1;
    after_ double precision;
BEGIN
    fits := 0;
    SELECT x.* INTO m FROM penstock.limiter x WHERE x.id = p_limiter FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        opens := p_now;
        RETURN;
    END IF;
    IF m.concurrency IS NOT NULL THEN
        p_most := greatest(0, least(p_most, penstock.places(p_limiter)));
    END IF;
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
    SELECT t.nr, t.line INTO nr, line FROM penstock.meter t WHERE t.limiter = p_limiter ORDER BY t.nr DESC LIMIT 1;
    line := coalesce(line, 0);
    after_ := line;
    WHILE fits < p_most LOOP
        IF m.varied THEN
            cost := costs[fits + 1];
        END IF;
        opens := after_ - greatest(0, m.burst - cost) / m.rate;
        EXIT WHEN opens > p_now + 1e-6;
        after_ := greatest(after_, p_now - 0.05) + cost / m.rate;
        fits := fits + 1;
    END LOOP;
END $$;

-- These are handed out: they are to be paid. `m`, `p_nr` and `p_line` are what `fit` has found.
CREATE FUNCTION penstock.pay(
    m penstock.limiter, p_nr bigint, p_line double precision, p_ids bigint[], p_now double precision) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    units double precision := cardinality(p_ids);
BEGIN
    IF m.used < p_now - 60 THEN
        UPDATE penstock.limiter x SET used = p_now WHERE x.id = m.id;
    END IF;
    IF m.rate IS NULL THEN
        RETURN;
    END IF;
    IF m.varied THEN
        SELECT sum(coalesce(c.cost, 1)) INTO units FROM unnest(p_ids) i LEFT JOIN penstock.cost c ON c.id = i;
    END IF;
    PERFORM penstock.move_line(m, p_nr, greatest(p_line, p_now - 0.05) + units / m.rate);
END $$;

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
    nr bigint;
    line double precision;
    old penstock.limiter;
    m penstock.limiter;
    r record;
BEGIN
    FOR r IN SELECT (e ->> 0)::integer AS n, e ->> 1 AS namespace, e ->> 2 AS name, (e ->> 3)::double precision AS rate,
            (e ->> 4)::double precision AS burst, (e ->> 5)::integer AS concurrency,
            (e ->> 6)::double precision AS lowest, (e ->> 7)::boolean AS varied FROM jsonb_array_elements(p_limits) e LOOP
        CONTINUE WHEN p_refused[r.n] IS NOT NULL;
        SELECT x.* INTO old FROM penstock.limiter x WHERE x.namespace = r.namespace AND x.name = r.name;
        CONTINUE WHEN old.rate IS NOT DISTINCT FROM r.rate AND old.burst = r.burst AND old.lowest <= r.lowest
            AND old.concurrency IS NOT DISTINCT FROM r.concurrency AND old.varied >= r.varied AND old.used > now_ - 60;
        SELECT x.* INTO old FROM penstock.limiter x WHERE x.id = old.id FOR NO KEY UPDATE;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'a limit that nobody used was removed' USING ERRCODE = 'PS003';
        END IF;
        UPDATE penstock.limiter x SET rate = r.rate, burst = r.burst, concurrency = r.concurrency, used = now_,
            lowest = least(x.lowest, r.lowest), varied = x.varied OR r.varied WHERE x.id = old.id RETURNING x.* INTO m;
        SELECT t.nr, t.line INTO nr, line FROM penstock.meter t WHERE t.limiter = m.id ORDER BY t.nr DESC LIMIT 1;
        IF m.rate IS NULL OR old.rate IS NULL OR line IS NULL THEN
            line := 0;
        ELSIF line > now_ THEN
            line := now_ + (line - now_) * old.rate / m.rate;
        END IF;
        PERFORM penstock.move_line(m, nr, line);
        IF (old.rate, old.burst, old.concurrency) IS DISTINCT FROM (m.rate, m.burst, m.concurrency) THEN
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
    old := ARRAY(SELECT m.id FROM penstock.limiter m WHERE m.used < now_ - 3600
        AND NOT EXISTS (SELECT FROM penstock.meter t WHERE t.limiter = m.id AND t.line > now_ - 0.05)
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
    DELETE FROM penstock.meter t WHERE t.limiter = ANY (old) AND NOT t.limiter = ANY (busy);
    DELETE FROM penstock.limiter m WHERE m.id = ANY (old) AND NOT m.id = ANY (busy);
END $$;
