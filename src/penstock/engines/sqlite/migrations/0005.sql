-- Schema 5: full queues that shed. `queue.overflow` is also 'shed-lowest-priority' or 'drop-oldest'.

-- shed, in the row of a queue's counters: tasks that made room for others since the queue exists.
-- Of a lane: holes are rows between head and tail that were shed. Rows spared_lo..spared_hi - 1 were looked through, and none of
-- them may be shed. since: no task that may be is ready for longer (Unix time, as far as was seen).
ALTER TABLE lane ADD COLUMN shed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE lane ADD COLUMN holes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE lane ADD COLUMN spared_lo INTEGER NOT NULL DEFAULT 0;
ALTER TABLE lane ADD COLUMN spared_hi INTEGER NOT NULL DEFAULT 0;
ALTER TABLE lane ADD COLUMN since REAL NOT NULL DEFAULT 0;
CREATE INDEX lane_since ON lane (queue, since) WHERE id > 0;
CREATE INDEX lane_waiting ON lane (queue, priority DESC, turn) WHERE eligible = 2;

-- 1: no worker had them yet: they were delayed, and are due.
ALTER TABLE returned ADD COLUMN fresh INTEGER NOT NULL DEFAULT 0;
CREATE INDEX returned_fresh ON returned (lane, n) WHERE fresh = 1;

CREATE INDEX dead_queue ON dead (queue, died);
CREATE INDEX dead_died ON dead (died);

DROP VIEW queue_stats;
CREATE VIEW queue_stats AS
SELECT q.id, q.namespace, q.name, c.depth,
    -- A task that was revoked in the middle of a range leaves a hole, which is counted until a claim passes it.
    min((SELECT coalesce(sum(tail - head + back - holes), 0) FROM lane WHERE queue = q.id AND id > 0), c.depth - c.delayed)
        AS ready,
    max(c.depth - c.delayed - (SELECT coalesce(sum(tail - head + back - holes), 0) FROM lane WHERE queue = q.id AND id > 0), 0)
        AS leased,
    c.delayed, (SELECT count(*) FROM dead WHERE queue = q.id) AS dead,
    c.bytes, c.max_length, c.max_bytes, c.enqueued, c.settled, q.paused, c.shed
FROM queue q JOIN lane c ON c.id = -q.id;
