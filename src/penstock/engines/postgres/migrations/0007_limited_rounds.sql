-- A worker's rounds, with limits: what a claim may take, and who is woken when something leased has ended.

-- Lease up to p_limit ready tasks. One row for each lane that had some. When none had, one row without a token, with the
-- seconds until the next is due, or may go, and what tells when all that runs now is over (see bells.py). p_floors, by
-- lane: where to begin, so as not to wade through what was consumed and cannot be vacuumed yet; what is below is found
-- without it.
CREATE OR REPLACE FUNCTION penstock.claim(
    p_queues integer[], p_limit integer, p_room bigint, p_worker text, p_lease double precision, p_turn integer[],
    p_floors jsonb, p_process text)
RETURNS TABLE (token bigint, lane integer, ids bigint[], attempts smallint[], bodies bytea[], last bigint,
               due double precision, oldest text, newest text)
LANGUAGE plpgsql AS $$
DECLARE
    l record;
    gate record;
    most integer;
    closest double precision;
    now_ double precision := penstock.now();
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
            SELECT x.id, greatest(x.id::bigint << 45, (p_floors ->> x.id::text)::bigint) AS low, x.limiter,
                CASE WHEN x.limiter <> 0 THEN (SELECT m.concurrency FROM penstock.limiter m WHERE m.id = x.limiter) END AS most
            FROM penstock.lane x
            WHERE x.queue = p_queues[n] AND (SELECT NOT q.paused FROM penstock.queue q WHERE q.id = p_queues[n])
                -- There may be thousands of limits, most of which must wait: that is looked at first.
                AND CASE WHEN x.limiter <> 0 AND (SELECT m.opens > now_ + 1e-6 FROM penstock.meter m
                    WHERE m.limiter = x.limiter ORDER BY m.nr DESC LIMIT 1)
                THEN false ELSE EXISTS (
                    SELECT FROM penstock.task t WHERE t.pos < (x.id + 1)::bigint << 45
                        AND t.pos >= greatest(x.id::bigint << 45, (p_floors ->> x.id::text)::bigint)) END
            ORDER BY x.priority DESC, x.id <= p_turn[n], x.id
        LOOP
            EXIT WHEN left_ <= 0;
            most := left_;
            IF l.limiter <> 0 THEN
                CONTINUE WHEN l.most IS NOT NULL AND penstock.places(l.limiter) <= 0;
                SELECT f.* INTO gate FROM penstock.fit(l.limiter, l.id, l.low, left_, now_) f;
                IF gate.fits = 0 THEN
                    closest := least(closest, gate.opens);
                    CONTINUE;
                END IF;
                most := gate.fits;
            END IF;
            SELECT array_agg(c.ctid), array_agg(c.s), sum(c.s) INTO places, sizes, size_ FROM (
                SELECT t.ctid, octet_length(t.body)::bigint AS s FROM penstock.task t
                WHERE t.pos >= l.low AND t.pos < (l.id + 1)::bigint << 45
                ORDER BY t.pos LIMIT most FOR UPDATE SKIP LOCKED) c;
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
                here, ids, attempts, bodies, l.limiter <> 0);
            IF l.limiter <> 0 THEN
                PERFORM penstock.pay(gate.m, gate.nr, gate.line, ids, now_);
            END IF;
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
        IF EXISTS (SELECT FROM penstock.limiter) THEN
            closest := least(closest, (
                SELECT y.opens FROM (
                    SELECT x.id, m.opens FROM penstock.lane x JOIN penstock.queue q ON q.id = x.queue, LATERAL (
                        SELECT t.opens FROM penstock.meter t WHERE t.limiter = x.limiter ORDER BY t.nr DESC LIMIT 1) m
                    WHERE x.queue = ANY (p_queues) AND x.limiter <> 0 AND NOT q.paused AND m.opens > now_ + 1e-6
                    ORDER BY m.opens OFFSET 0) y
                WHERE EXISTS (SELECT FROM penstock.task t WHERE t.pos >= y.id::bigint << 45
                    AND t.pos < (y.id + 1)::bigint << 45) LIMIT 1));
        END IF;
        -- Not each moment at which one more may go: a few go together, and the lag of the line makes up for it.
        closest := CASE WHEN closest IS NOT NULL THEN greatest(closest, now_ + 0.004) END;
        SELECT least(min(d.due), closest) - penstock.now() INTO due FROM penstock.delayed d;
        oldest := running;
        newest := begun;
        RETURN NEXT;
    END IF;
END $$;

-- Acknowledge whole leases, with their outcomes; returns the lanes of those that were limited. Null, and nothing is done,
-- when one of them is lost, or was settled in part.
DROP FUNCTION penstock.finish;
CREATE FUNCTION penstock.finish(
    p_tokens bigint[], p_counts integer[], p_buckets bigint[], p_masks bigint[], p_values bytea[], p_worker text)
RETURNS integer[] LANGUAGE plpgsql AS $$
DECLARE
    found_ integer;
    lanes integer[];
BEGIN
    IF EXISTS (SELECT FROM penstock.unique_key) OR EXISTS (SELECT FROM penstock.progress)
        OR EXISTS (SELECT FROM penstock.revoked) OR EXISTS (SELECT FROM penstock.cost) THEN
        PERFORM penstock.clear((SELECT array_agg(i) FROM penstock.lease l, unnest(l.ids) i WHERE l.token = ANY (p_tokens)));
    END IF;
    WITH gone AS (
        DELETE FROM penstock.lease l USING unnest(p_tokens, p_counts) u (t, c) WHERE l.token = u.t AND l.count = u.c
        RETURNING l.lane, l.count, l.size, l.limited
    ), told AS (
        INSERT INTO penstock.delta SELECT x.queue, -sum(g.count), -sum(g.size), 0, sum(g.count)
            FROM gone g JOIN penstock.lane x ON x.id = g.lane GROUP BY x.queue
    )
    SELECT count(*), array_agg(lane) FILTER (WHERE limited) INTO found_, lanes FROM gone;
    IF found_ <> cardinality(p_tokens) THEN
        RAISE EXCEPTION 'a lease is lost' USING ERRCODE = 'PS002';
    END IF;
    IF cardinality(p_buckets) > 0 THEN
        PERFORM penstock.store(p_buckets, p_masks, p_values, p_worker);
    END IF;
    RETURN coalesce(lanes, '{}');
EXCEPTION WHEN SQLSTATE 'PS002' THEN
    RETURN NULL;
END $$;

-- A worker's usual round: acknowledge whole leases, and claim. A lane of -1: a lease is lost, nothing was done. What only
-- claims is not flushed at once: should it be lost, the tasks are ready as before.
CREATE OR REPLACE FUNCTION penstock.step(
    p_tokens bigint[], p_counts integer[], p_buckets bigint[], p_masks bigint[], p_values bytea[],
    p_queues integer[], p_limit integer, p_room bigint, p_worker text, p_lease double precision, p_turn integer[],
    p_floors jsonb, p_process text)
RETURNS TABLE (token bigint, lane integer, ids bigint[], attempts smallint[], bodies bytea[], last bigint,
               due double precision, oldest text, newest text)
LANGUAGE plpgsql AS $$
DECLARE
    limited integer[];
BEGIN
    IF p_tokens IS NULL THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    ELSE
        limited := penstock.finish(p_tokens, p_counts, p_buckets, p_masks, p_values, p_worker);
        IF limited IS NULL THEN
            lane := -1;
            RETURN NEXT;
            RETURN;
        END IF;
    END IF;
    IF p_queues IS NOT NULL THEN
        RETURN QUERY SELECT * FROM penstock.claim(p_queues, p_limit, p_room, p_worker, p_lease, p_turn,
            p_floors, p_process);
    END IF;
    IF limited <> '{}' THEN
        PERFORM penstock.freed(limited);  -- after the claim, which may have taken the places itself
    END IF;
END $$;

-- Settle deliveries one by one: verdict 'a' ack, 'r' release, 'l' retry at p_whens, 'd' dead for p_reasons. p_seqs are
-- new places for retries. All or nothing: returns the numbers of those whose lease is lost, and then nothing is done.
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
            INSERT INTO penstock.task VALUES (l.pos[at_], p_ids[n], l.attempts[at_], body_);
            UPDATE penstock.unique_key u SET started = false WHERE u.id = p_ids[n] AND u.started;
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
    IF limited <> '{}' THEN PERFORM penstock.freed(limited); END IF;
    RETURN '{}';
END $$;

-- Make what these leases hold ready again, in its old place; of p_charged (numbers), an attempt is counted. With
-- p_expired only leases that have run out. Returns how many tasks came back.
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
            SELECT u.p, u.i, u.a + (u.i = ANY (p_charged))::integer, u.b
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
