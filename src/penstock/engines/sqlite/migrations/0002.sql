-- Schema 2: what a broker needs.
-- Its answers, so that a client that did not hear one can ask again, also after the broker died: one row for each of a
-- session's last 64, slot = mark % 64.

CREATE TABLE heard (
    session INTEGER NOT NULL,
    slot INTEGER NOT NULL,
    mark INTEGER NOT NULL,
    at REAL NOT NULL,
    answer BLOB NOT NULL,
    PRIMARY KEY (session, slot)
) WITHOUT ROWID;

-- What becomes of the publishers of a full queue: 'reject', or 'block'.
ALTER TABLE queue ADD COLUMN overflow TEXT NOT NULL DEFAULT 'reject';
