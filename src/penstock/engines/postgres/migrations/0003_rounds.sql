-- A worker's rounds: claiming, settling, storing outcomes.

-- These tasks were ended before they ran.
CREATE FUNCTION penstock.end_revoked(p_ids bigint[]) RETURNS void LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    buckets bigint[];
BEGIN
    WITH told AS (
        INSERT INTO penstock.result (bucket, mask, at, worker, size, body)
            SELECT i >> 6, bit_or(1::bigint << (i & 63)::integer), penstock.now(), '', 0, NULL
            FROM unnest(p_ids) i GROUP BY 1 RETURNING bucket
    )
    SELECT array_agg(bucket) INTO buckets FROM told;
    PERFORM penstock.tell(buckets);
END $$;

-- What only a live task has.
CREATE FUNCTION penstock.clear(p_ids bigint[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM penstock.unique_key) THEN
        DELETE FROM penstock.unique_key u WHERE u.id = ANY (p_ids);
    END IF;
    IF EXISTS (SELECT FROM penstock.progress) THEN
        DELETE FROM penstock.progress p WHERE p.id = ANY (p_ids);
    END IF;
    IF EXISTS (SELECT FROM penstock.revoked) THEN
        DELETE FROM penstock.revoked r WHERE r.id = ANY (p_ids);
    END IF;
END $$;

-- Make due tasks ready, behind what is there; returns how many.
CREATE FUNCTION penstock.promote() RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    moved bigint := 0;
    base bigint;
    r record;
BEGIN
    IF NOT EXISTS (SELECT FROM penstock.delayed d WHERE d.due <= penstock.now()) THEN
        RETURN 0;
    END IF;
    base := nextval('penstock.block');
    FOR r IN
        WITH gone AS (
            DELETE FROM penstock.delayed d WHERE d.id IN (
                SELECT x.id FROM penstock.delayed x WHERE x.due <= penstock.now()
                ORDER BY x.due LIMIT 1000 FOR UPDATE SKIP LOCKED) RETURNING d.*
        ), ready AS (
            INSERT INTO penstock.task
                SELECT (g.lane::bigint << 45) | (base + row_number() OVER (ORDER BY g.due, g.id)), g.id, g.attempts, g.body
                FROM gone g RETURNING pos
        )
        SELECT l.queue, count(*) AS count FROM ready, penstock.lane l WHERE l.id = (pos >> 45)::integer GROUP BY 1
    LOOP
        moved := moved + r.count;
        PERFORM penstock.ring(r.queue, r.count);
    END LOOP;
    RETURN moved;
END $$;

-- Lease up to p_limit ready tasks. One row for each lane that had some. When none had, one row without a token, with the
-- seconds until the next is due and what tells when all that runs now is over (see bells.py). p_floors, by lane: where to
-- begin, so as not to wade through what was consumed and cannot be vacuumed yet; what is below is found without it.
CREATE FUNCTION penstock.claim(
    p_queues integer[], p_limit integer, p_room bigint, p_worker text, p_lease double precision, p_turn integer[],
    p_floors jsonb, p_process text)
RETURNS TABLE (token bigint, lane integer, ids bigint[], attempts smallint[], bodies bytea[], last bigint,
               due double precision, oldest text, newest text)
LANGUAGE plpgsql AS $$
DECLARE
    l record;
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
            SELECT x.id, greatest(x.id::bigint << 45, (p_floors ->> x.id::text)::bigint) AS low
            FROM penstock.lane x JOIN penstock.queue q ON q.id = x.queue
            WHERE x.queue = p_queues[n] AND NOT q.paused AND EXISTS (
                SELECT FROM penstock.task t WHERE t.pos >= greatest(x.id::bigint << 45, (p_floors ->> x.id::text)::bigint)
                    AND t.pos < (x.id + 1)::bigint << 45)
            ORDER BY x.priority DESC, x.id <= p_turn[n], x.id
        LOOP
            EXIT WHEN left_ <= 0;
            SELECT array_agg(c.ctid), array_agg(c.s), sum(c.s) INTO places, sizes, size_ FROM (
                SELECT t.ctid, octet_length(t.body)::bigint AS s FROM penstock.task t
                WHERE t.pos >= l.low AND t.pos < (l.id + 1)::bigint << 45
                ORDER BY t.pos LIMIT left_ FOR UPDATE SKIP LOCKED) c;
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
                here, ids, attempts, bodies);
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
        SELECT min(d.due) - penstock.now() INTO due FROM penstock.delayed d;
        oldest := running;
        newest := begun;
        RETURN NEXT;
    END IF;
END $$;

-- Store outcomes, in rows of one bucket each.
CREATE FUNCTION penstock.store(p_buckets bigint[], p_masks bigint[], p_values bytea[], p_worker text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO penstock.result (bucket, mask, at, worker, size, body)
        SELECT u.b, u.m, penstock.now(), p_worker, octet_length(u.v), u.v FROM unnest(p_buckets, p_masks, p_values) u (b, m, v);
    INSERT INTO penstock.delta SELECT 0, cardinality(p_values), sum(octet_length(v)), 0, 0 FROM unnest(p_values) v;
    PERFORM penstock.tell(p_buckets);
END $$;

-- Acknowledge whole leases, with their outcomes. False, and nothing is done, when one of them is lost, or was settled in
-- part.
CREATE FUNCTION penstock.finish(
    p_tokens bigint[], p_counts integer[], p_buckets bigint[], p_masks bigint[], p_values bytea[], p_worker text)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    found_ integer;
BEGIN
    IF EXISTS (SELECT FROM penstock.unique_key) OR EXISTS (SELECT FROM penstock.progress)
        OR EXISTS (SELECT FROM penstock.revoked) THEN
        PERFORM penstock.clear((SELECT array_agg(i) FROM penstock.lease l, unnest(l.ids) i WHERE l.token = ANY (p_tokens)));
    END IF;
    WITH gone AS (
        DELETE FROM penstock.lease l USING unnest(p_tokens, p_counts) u (t, c) WHERE l.token = u.t AND l.count = u.c
        RETURNING l.lane, l.count, l.size
    ), told AS (
        INSERT INTO penstock.delta SELECT x.queue, -sum(g.count), -sum(g.size), 0, sum(g.count)
            FROM gone g JOIN penstock.lane x ON x.id = g.lane GROUP BY x.queue
    )
    SELECT count(*) INTO found_ FROM gone;
    IF found_ <> cardinality(p_tokens) THEN
        RAISE EXCEPTION 'a lease is lost' USING ERRCODE = 'PS002';
    END IF;
    IF cardinality(p_buckets) > 0 THEN
        PERFORM penstock.store(p_buckets, p_masks, p_values, p_worker);
    END IF;
    RETURN true;
EXCEPTION WHEN SQLSTATE 'PS002' THEN
    RETURN false;
END $$;

-- A worker's usual round: acknowledge whole leases, and claim. A lane of -1: a lease is lost, nothing was done. What only
-- claims is not flushed at once: should it be lost, the tasks are ready as before.
CREATE FUNCTION penstock.step(
    p_tokens bigint[], p_counts integer[], p_buckets bigint[], p_masks bigint[], p_values bytea[],
    p_queues integer[], p_limit integer, p_room bigint, p_worker text, p_lease double precision, p_turn integer[],
    p_floors jsonb, p_process text)
RETURNS TABLE (token bigint, lane integer, ids bigint[], attempts smallint[], bodies bytea[], last bigint,
               due double precision, oldest text, newest text)
LANGUAGE plpgsql AS $$
BEGIN
    IF p_tokens IS NULL THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    ELSIF NOT penstock.finish(p_tokens, p_counts, p_buckets, p_masks, p_values, p_worker) THEN
        lane := -1;
        RETURN NEXT;
        RETURN;
    END IF;
    IF p_queues IS NOT NULL THEN
        RETURN QUERY SELECT * FROM penstock.claim(p_queues, p_limit, p_room, p_worker, p_lease, p_turn,
            p_floors, p_process);
    END IF;
END $$;

-- Settle deliveries one by one: verdict 'a' ack, 'r' release, 'l' retry at p_whens, 'd' dead for p_reasons. p_seqs are
-- new places for retries. All or nothing: returns the numbers of those whose lease is lost, and then nothing is done.
CREATE FUNCTION penstock.settle(
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
BEGIN
    PERFORM FROM penstock.lease x WHERE x.token = ANY (p_tokens) ORDER BY x.token FOR UPDATE;
    SELECT coalesce(array_agg(u.n), '{}') INTO lost FROM unnest(p_tokens, p_ids) WITH ORDINALITY u (t, i, n)
        WHERE NOT EXISTS (SELECT FROM penstock.lease x WHERE x.token = u.t AND u.i = ANY (x.ids));
    IF cardinality(lost) > 0 THEN
        RETURN lost;
    END IF;
    FOR n IN 1..cardinality(p_tokens) LOOP
        SELECT x.lane, x.pos, x.ids, x.attempts, x.bodies, x.count INTO l FROM penstock.lease x WHERE x.token = p_tokens[n];
        at_ := array_position(l.ids, p_ids[n]);
        SELECT x.queue INTO q FROM penstock.lane x WHERE x.id = l.lane;
        old_size := octet_length(l.bodies[at_]);
        body_ := coalesce(p_bodies[n], l.bodies[at_]);
        IF p_verdicts[n] IN ('r', 'l') AND EXISTS (SELECT FROM penstock.revoked v WHERE v.id = p_ids[n]) THEN
            dropped := dropped || p_ids[n];
            INSERT INTO penstock.delta VALUES (q, -1, -old_size, 0, 1);
        ELSIF p_verdicts[n] = 'r' THEN
            INSERT INTO penstock.task VALUES (l.pos[at_], p_ids[n], l.attempts[at_], body_);
            UPDATE penstock.unique_key u SET started = false WHERE u.id = p_ids[n];
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
    RETURN '{}';
END $$;
