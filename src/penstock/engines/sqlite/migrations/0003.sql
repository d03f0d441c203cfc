-- Schema 3: limits, and unique keys that only time frees.

-- How fast, and how many at a time, the tasks of one key are handed out.
CREATE TABLE limiter (
    id INTEGER PRIMARY KEY,
    namespace TEXT NOT NULL,
    key TEXT NOT NULL,
    rate REAL,                            -- units a second
    burst REAL NOT NULL,
    concurrency INTEGER,
    full REAL NOT NULL,                   -- Unix time at which a full burst is there again
    closed INTEGER NOT NULL DEFAULT 0,    -- none may go
    again REAL,                           -- closed until then (Unix time), or until one that is leased comes back
    queues INTEGER NOT NULL DEFAULT 0,    -- a bit set of those that had some of its tasks
    look REAL NOT NULL                    -- Unix time at which to see whether it can be forgotten
);
CREATE UNIQUE INDEX limiter_name ON limiter (namespace, key);
CREATE INDEX limiter_again ON limiter (again, queues) WHERE again IS NOT NULL;
CREATE INDEX limiter_look ON limiter (look);

-- A lane of limited tasks is of one key as well. 0: of none. -1: its key was forgotten, and another may have the lane.
-- Of an open limiter's lanes with work, the first of each queue is eligible: 1. The others have 2, and so have all of a
-- closed one.
ALTER TABLE lane ADD COLUMN limiter INTEGER NOT NULL DEFAULT 0;
DROP INDEX lane_name;
CREATE INDEX lane_name ON lane (queue, priority, partition, limiter);
CREATE INDEX lane_limiter ON lane (limiter, eligible, queue, priority DESC, turn) WHERE limiter > 0;

-- Leases of limited tasks, so that those of a key can be counted.
ALTER TABLE lease ADD COLUMN limiter INTEGER;
CREATE INDEX lease_limiter ON lease (limiter, lo, hi) WHERE limiter IS NOT NULL;

-- 1: whatever becomes of its task, the key is held until its time is over.
ALTER TABLE unique_key ADD COLUMN lasting INTEGER NOT NULL DEFAULT 0;
