-- Schema 2: what a broker needs.
-- Its answers, so that a client that did not hear one can ask again, also after the broker died: a ring, the newest of all.

CREATE TABLE heard (
    slot INTEGER PRIMARY KEY,
    session INTEGER NOT NULL,
    mark INTEGER NOT NULL,
    at REAL NOT NULL,
    answer BLOB NOT NULL
);

-- What becomes of the publishers of a full queue: 'reject', or 'block'.
ALTER TABLE queue ADD COLUMN overflow TEXT NOT NULL DEFAULT 'reject';
