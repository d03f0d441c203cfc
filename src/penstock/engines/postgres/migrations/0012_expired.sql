-- Limits: what has expired takes nothing, and a rate that is lowered is no reason to wait for hours; see penstock/limiting.py.
-- Chosen ids: parts that came before their task do not keep it out.

-- What a limited task costs, where that is not 1, or where it expires; `lowest` and `varied` of its limiter tell of that.
ALTER TABLE penstock.cost ADD expires double precision;

-- What these tasks take if they go at p_now, in their order.
CREATE FUNCTION penstock.costs(p_ids bigint[], p_now double precision) RETURNS double precision[] LANGUAGE sql STABLE AS $$
    SELECT array_agg(CASE WHEN c.expires <= p_now THEN 0 ELSE coalesce(c.cost, 1) END ORDER BY w.n)
    FROM unnest(p_ids) WITH ORDINALITY w (id, n) LEFT JOIN penstock.cost c ON c.id = w.id
$$;

-- How many of the first tasks of a lane may go at p_now: see 0006_limits.sql.
CREATE OR REPLACE FUNCTION penstock.fit(
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
        costs := coalesce(penstock.costs(ARRAY(
            SELECT t.id FROM penstock.task t WHERE t.pos >= p_low AND t.pos < (p_lane + 1)::bigint << 45
            ORDER BY t.pos LIMIT p_most), p_now), '{}');
        p_most := cardinality(costs);
    END IF;
    SELECT t.nr, t.line INTO nr, line FROM penstock.meter t WHERE t.limiter = p_limiter ORDER BY t.nr DESC LIMIT 1;
    line := coalesce(line, 0);
    after_ := line;
    WHILE fits < p_most LOOP
        IF m.varied THEN
            cost := costs[fits + 1];
        END IF;
        IF cost > 0 THEN
            opens := after_ - greatest(0, m.burst - cost) / m.rate;
            EXIT WHEN opens > p_now + 1e-6;
            after_ := greatest(after_, p_now - 0.05) + cost / m.rate;
        END IF;
        fits := fits + 1;
    END LOOP;
END $$;

-- These are handed out: they are to be paid. `m`, `p_nr` and `p_line` are what `fit` has found.
CREATE OR REPLACE FUNCTION penstock.pay(
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
        SELECT sum(c) INTO units FROM unnest(penstock.costs(p_ids, p_now)) c;
    END IF;
    IF units > 0 THEN
        PERFORM penstock.move_line(m, p_nr, greatest(p_line, p_now - 0.05) + units / m.rate);
    END IF;
END $$;

-- What the newest messages say of their limits: see 0006_limits.sql.
CREATE OR REPLACE FUNCTION penstock.set_limits(p_limits jsonb, p_refused text[]) RETURNS void LANGUAGE plpgsql AS $$
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
            line := now_ + least((line - now_) * old.rate / m.rate, greatest(line - now_, m.burst / m.rate));
        END IF;
        PERFORM penstock.move_line(m, nr, line);
        IF (old.rate, old.burst, old.concurrency) IS DISTINCT FROM (m.rate, m.burst, m.concurrency) THEN
            PERFORM penstock.ring_limited(m.id, 64);
        END IF;
    END LOOP;
END $$;

-- Lease up to p_limit ready tasks. One row for each lane that had some; `let_go` is when its limit let them go, if it has
-- one. All else is as it was: see 0007_limited_rounds.sql.
DROP FUNCTION penstock.step;
DROP FUNCTION penstock.claim;
CREATE FUNCTION penstock.claim(
    p_queues integer[], p_limit integer, p_room bigint, p_worker text, p_lease double precision, p_turn integer[],
    p_floors jsonb, p_process text)
RETURNS TABLE (token bigint, lane integer, ids bigint[], attempts smallint[], bodies bytea[], last bigint,
               due double precision, oldest text, newest text, let_go double precision)
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
            let_go := NULL;
            IF l.limiter <> 0 THEN
                PERFORM penstock.pay(gate.m, gate.nr, gate.line, ids, now_);
                let_go := now_;
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

-- A worker's usual round: acknowledge whole leases, and claim.
CREATE FUNCTION penstock.step(
    p_tokens bigint[], p_counts integer[], p_buckets bigint[], p_masks bigint[], p_values bytea[],
    p_queues integer[], p_limit integer, p_room bigint, p_worker text, p_lease double precision, p_turn integer[],
    p_floors jsonb, p_process text)
RETURNS TABLE (token bigint, lane integer, ids bigint[], attempts smallint[], bodies bytea[], last bigint,
               due double precision, oldest text, newest text, let_go double precision)
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

-- Guards are as in 0008_guards.sql, and all else as in 0011_full_queues.sql, but for ['limit', namespace, key, cost, expires], for a limited message that does not cost
-- 1, or expires.
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
