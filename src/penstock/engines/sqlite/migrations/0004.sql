-- Schema 4: what tasks publish while they run.
-- Of each task the newest parts, which have the indexes first..next - 1. run and mark are of its last append, at is its time.
CREATE TABLE stream (
    id INTEGER PRIMARY KEY,
    first INTEGER NOT NULL,
    next INTEGER NOT NULL,
    bytes INTEGER NOT NULL,               -- of the values
    run INTEGER NOT NULL,
    mark INTEGER NOT NULL,
    at REAL NOT NULL
);

-- One row for the parts of an append, or for up to 256 of them. v: a MessagePack array of [value, encoding], from index n on.
CREATE TABLE part (
    id INTEGER NOT NULL,
    n INTEGER NOT NULL,
    run INTEGER NOT NULL,
    count INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    v BLOB NOT NULL,
    PRIMARY KEY (id, n)
) WITHOUT ROWID;
