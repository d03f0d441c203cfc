-- Publishing inside the transactions of callers, who may keep them open for long, and go back on them.

-- Wake who sleeps, at the commit. Unlike `ring` it takes nobody's registration: until then others would wake nobody.
CREATE FUNCTION penstock.ring_at_commit(p_queue integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('penstock_' || w.process, '') FROM (
        SELECT x.process FROM penstock.waiting x WHERE x.queue = p_queue AND x.until > penstock.now() LIMIT 64) w;
END $$;

-- Publish on any connection: whoever may use the schema may publish, and needs no other right. `p_check`: the hash of the
-- secret of the broker's schema. `p_envelope`: {"routes": [[namespace, queue, priority, partition, bounds…], …],
-- "lanes": [index into routes, …], "sizes": [bytes in p_bodies, …], "ids", "names", "dues", "guards": see `publish`}.
-- Returns one row for each message at least, that of an accepted one with its number; the last one of a message counts.
-- Plans must not hang on statistics, nor names on the caller's settings.
CREATE FUNCTION penstock.enlist(p_check text, p_envelope text, p_bodies bytea)
RETURNS TABLE (n integer, kind text, id bigint, name text,
               depth bigint, bound bigint, unit text, excess bigint, settled bigint, age double precision)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET jit = off
AS $$
DECLARE
    envelope jsonb := p_envelope;
    base bigint := nextval('penstock.block') - 1;
    routes integer[];
    lanes integer[];
    numbers bigint[];
    bodies bytea[];
    ids bigint[];
    names text[];
    dues double precision[];
    guards jsonb := nullif(envelope -> 'guards', 'null');
BEGIN
    IF NOT EXISTS (SELECT FROM penstock.meta m WHERE m.name = 'secret' AND encode(sha256(m.value), 'hex') = p_check) THEN
        RETURN QUERY SELECT 0, 'stranger', NULL::bigint, NULL::text, NULL::bigint, NULL::bigint, NULL::text,
            NULL::bigint, NULL::bigint, NULL::double precision;
        RETURN;
    END IF;
    SELECT array_agg((SELECT x.lane FROM penstock.route(r ->> 0, r ->> 1, (r ->> 2)::integer, r ->> 3,
            (r ->> 4)::bigint, (r ->> 5)::bigint) x) ORDER BY i)
        INTO routes FROM jsonb_array_elements(envelope -> 'routes') WITH ORDINALITY u (r, i);
    SELECT array_agg(routes[l::integer + 1] ORDER BY i) INTO lanes
        FROM jsonb_array_elements_text(envelope -> 'lanes') WITH ORDINALITY u (l, i);
    SELECT array_agg(l::bigint << 45 | base + i ORDER BY i) INTO numbers FROM unnest(lanes) WITH ORDINALITY u (l, i);
    SELECT array_agg(substring(p_bodies, (1 + upto - size)::integer, size) ORDER BY i) INTO bodies FROM (
        SELECT s::integer AS size, sum(s::integer) OVER (ORDER BY o) AS upto, o
        FROM jsonb_array_elements_text(envelope -> 'sizes') WITH ORDINALITY v (s, o)) u (size, upto, i);
    SELECT array_agg(v::bigint ORDER BY i) INTO ids
        FROM jsonb_array_elements_text(nullif(envelope -> 'ids', 'null')) WITH ORDINALITY u (v, i);
    SELECT array_agg(v ORDER BY i) INTO names
        FROM jsonb_array_elements_text(nullif(envelope -> 'names', 'null')) WITH ORDINALITY u (v, i);
    SELECT array_agg(v::double precision ORDER BY i) INTO dues
        FROM jsonb_array_elements_text(nullif(envelope -> 'dues', 'null')) WITH ORDINALITY u (v, i);
    IF cardinality(routes) = 1 THEN
        lanes := routes;
    END IF;
    RETURN QUERY SELECT u.i::integer, 'accepted', u.p, NULL::text, NULL::bigint, NULL::bigint, NULL::text, NULL::bigint,
        NULL::bigint, NULL::double precision FROM unnest(numbers) WITH ORDINALITY u (p, i);
    IF guards IS NULL AND names IS NULL AND ids IS NULL THEN
        RETURN QUERY SELECT * FROM penstock.publish(lanes, numbers, bodies, ids, names, dues, guards, 'soft');
        RETURN;
    END IF;
    FOR attempt IN 1..20 LOOP
        BEGIN
            RETURN QUERY SELECT * FROM penstock.publish(lanes, numbers, bodies, ids, names, dues, guards, 'soft');
            RETURN;
        EXCEPTION WHEN serialization_failure OR unique_violation THEN
            -- Somebody had taken a key, and committed while we waited for him. Where statements see what others commit,
            -- look again; else it is for the caller to repeat the whole transaction.
            IF attempt = 20 OR current_setting('transaction_isolation') IN ('repeatable read', 'serializable') THEN
                RAISE;
            END IF;
        END;
    END LOOP;
END $$;
