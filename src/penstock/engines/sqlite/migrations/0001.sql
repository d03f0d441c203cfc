-- Schema 1. Documented in docs/reference/schema.md; read it through the views at the end, never write to it.
-- A task's row id says where it is: lane << 45 | parked << 44 | sequence. It never changes while the task lives.

CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
INSERT INTO meta VALUES ('turn', 1), ('version', 0);

CREATE TABLE queue (
    id INTEGER PRIMARY KEY,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    paused INTEGER NOT NULL DEFAULT 0,
    UNIQUE (namespace, name)
);

-- A lane is one order of tasks: of one queue, priority and partition. head and tail are row ids; ready = tail - head + back.
-- The row with the negative id of a queue is no lane: it has the queue's counters, here so that they share a page with its lanes.
CREATE TABLE lane (
    id INTEGER PRIMARY KEY,
    queue INTEGER NOT NULL REFERENCES queue (id),
    priority INTEGER NOT NULL,
    partition TEXT NOT NULL,
    head INTEGER NOT NULL,
    tail INTEGER NOT NULL,
    parked INTEGER NOT NULL,              -- next row id for tasks that are born delayed
    back INTEGER NOT NULL DEFAULT 0,      -- tasks in `returned`
    eligible INTEGER NOT NULL DEFAULT 0,  -- ready > 0
    turn INTEGER NOT NULL DEFAULT 0,      -- the lane with the lowest is served next
    claims INTEGER NOT NULL DEFAULT 0,    -- since the lane exists
    depth INTEGER,                        -- ready + leased + delayed
    bytes INTEGER,
    delayed INTEGER,
    enqueued INTEGER,                     -- since the queue exists
    settled INTEGER,
    max_length INTEGER,
    max_bytes INTEGER
);
CREATE UNIQUE INDEX lane_name ON lane (queue, priority, partition);
CREATE INDEX lane_eligible ON lane (queue, priority DESC, turn) WHERE eligible = 1;

-- A row stays where it is until the task ends. due: delayed until then (Unix time).
CREATE TABLE task (
    id INTEGER PRIMARY KEY,
    due REAL,
    attempts INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX task_due ON task (due) WHERE due IS NOT NULL;

-- Ranges of tasks that are ready again: returned by a worker, or delayed and now due.
CREATE TABLE returned (n INTEGER PRIMARY KEY, lane INTEGER NOT NULL, lo INTEGER NOT NULL, hi INTEGER NOT NULL);
CREATE INDEX returned_lane ON returned (lane, n);

-- One row a claim. The token fences: who comes with a token that is not here has lost the lease.
CREATE TABLE lease (
    token INTEGER PRIMARY KEY,            -- claims of the lane << 18 | lane: never the same twice
    lo INTEGER NOT NULL,
    hi INTEGER NOT NULL,
    worker TEXT NOT NULL,
    until REAL NOT NULL
);

-- Ids that users chose, or that were derived.
CREATE TABLE alias (name TEXT PRIMARY KEY, id INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX alias_id ON alias (id);

-- One row a run of consecutive tasks. v: a JSON array of [state, done, runtime, retries, task, value, encoding], one for each of
-- lo..hi, or null for a forgotten one. total: bytes of v in all rows up to this one since the table was last empty.
CREATE TABLE result (
    run INTEGER PRIMARY KEY AUTOINCREMENT,
    lo INTEGER NOT NULL,
    hi INTEGER NOT NULL,
    at REAL NOT NULL,
    total INTEGER NOT NULL,
    worker TEXT NOT NULL,
    v TEXT NOT NULL
);
CREATE INDEX result_lo ON result (lo, hi);

CREATE TABLE dead (
    id INTEGER PRIMARY KEY,
    queue INTEGER NOT NULL,
    reason TEXT NOT NULL,
    died REAL NOT NULL,
    attempts INTEGER NOT NULL,
    body BLOB NOT NULL
);

CREATE TABLE unique_key (name TEXT PRIMARY KEY, id INTEGER NOT NULL, until REAL) WITHOUT ROWID;
CREATE INDEX unique_until ON unique_key (until) WHERE until IS NOT NULL;
CREATE INDEX unique_id ON unique_key (id);
CREATE TABLE dedup (name TEXT PRIMARY KEY, id INTEGER NOT NULL, until REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX dedup_until ON dedup (until);

CREATE TABLE revoked (id INTEGER PRIMARY KEY, terminate INTEGER NOT NULL, at REAL NOT NULL);
CREATE TABLE revoked_name (name TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE progress (id INTEGER PRIMARY KEY, done REAL NOT NULL, total REAL, note TEXT NOT NULL, at REAL NOT NULL);

CREATE TABLE joining (name TEXT PRIMARY KEY, size INTEGER NOT NULL, done INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE joined (name TEXT NOT NULL, n INTEGER NOT NULL, value BLOB NOT NULL, PRIMARY KEY (name, n)) WITHOUT ROWID;

CREATE TABLE state (key TEXT PRIMARY KEY, value BLOB, version INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE leader (name TEXT PRIMARY KEY, holder TEXT NOT NULL, token INTEGER NOT NULL, until REAL NOT NULL) WITHOUT ROWID;

CREATE TABLE worker (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    slots INTEGER NOT NULL,
    queues TEXT NOT NULL,                 -- a JSON array
    pool TEXT NOT NULL,
    started REAL NOT NULL,
    seen REAL NOT NULL
) WITHOUT ROWID;

CREATE VIEW queue_stats AS
SELECT q.id, q.namespace, q.name, c.depth,
    -- A task that was revoked in the middle of a range leaves a hole, which is counted until a claim passes it.
    min((SELECT coalesce(sum(tail - head + back), 0) FROM lane WHERE queue = q.id AND id > 0), c.depth - c.delayed) AS ready,
    max(c.depth - c.delayed - (SELECT coalesce(sum(tail - head + back), 0) FROM lane WHERE queue = q.id AND id > 0), 0)
        AS leased,
    c.delayed, (SELECT count(*) FROM dead WHERE queue = q.id) AS dead,
    c.bytes, c.max_length, c.max_bytes, c.enqueued, c.settled, q.paused
FROM queue q JOIN lane c ON c.id = -q.id;

-- The task's name is the third item of the body's MessagePack array, after its header and the one-byte version.
CREATE VIEW task_list AS
SELECT t.id, q.namespace, q.name AS queue, l.priority, l.partition,
    CAST(CASE WHEN hex(substr(t.body, 5, 1)) = 'D9'
        THEN substr(t.body, 7, instr(x'000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F202122232425262728292A2B2C2D2E2F303132333435363738393A3B3C3D3E3F404142434445464748494A4B4C4D4E4F505152535455565758595A5B5C5D5E5F606162636465666768696A6B6C6D6E6F707172737475767778797A7B7C7D7E7F808182838485868788898A8B8C8D8E8F909192939495969798999A9B9C9D9E9FA0A1A2A3A4A5A6A7A8A9AAABACADAEAFB0B1B2B3B4B5B6B7B8B9BABBBCBDBEBFC0C1C2C3C4C5C6C7C8C9CACBCCCDCECFD0D1D2D3D4D5D6D7D8D9DADBDCDDDEDFE0E1E2E3E4E5E6E7E8E9EAEBECEDEEEFF0F1F2F3F4F5F6F7F8F9FAFBFCFDFEFF', substr(t.body, 6, 1)) - 1)
        ELSE substr(t.body, 6, instr(x'A0A1A2A3A4A5A6A7A8A9AAABACADAEAFB0B1B2B3B4B5B6B7B8B9BABBBCBDBEBF', substr(t.body, 5, 1)) - 1)
    END AS TEXT) AS task,
    CASE WHEN t.due IS NOT NULL THEN 'delayed'
        WHEN EXISTS (SELECT 1 FROM lease WHERE t.id BETWEEN lo AND hi) THEN 'leased' ELSE 'ready' END AS state,
    t.due, t.attempts, length(t.body) AS bytes, (SELECT name FROM alias WHERE alias.id = t.id) AS chosen_id
FROM task t JOIN lane l ON l.id = t.id >> 45 JOIN queue q ON q.id = l.queue;

CREATE VIEW result_list AS
SELECT r.lo + j.key AS id, json_extract(j.value, '$[4]') AS task, json_extract(j.value, '$[0]') AS state,
    json_extract(j.value, '$[1]') AS done, json_extract(j.value, '$[2]') AS runtime, json_extract(j.value, '$[3]') AS retries,
    json_extract(j.value, '$[5]') AS value, r.worker
FROM result r, json_each(r.v) j WHERE j.type = 'array';

CREATE VIEW lease_list AS SELECT token, lo, hi, worker, until FROM lease;

CREATE VIEW dead_list AS
SELECT d.id, q.namespace, q.name AS queue, d.reason, d.died, d.attempts, length(d.body) AS bytes FROM dead d JOIN queue q ON q.id = d.queue;
