-- Schema 2: what a broker answered, so that a client that did not hear it can ask again, also after the broker died.
-- One row for each of a session's last 64 answers: slot = mark % 64.

CREATE TABLE heard (
    session INTEGER NOT NULL,
    slot INTEGER NOT NULL,
    mark INTEGER NOT NULL,
    at REAL NOT NULL,
    answer BLOB NOT NULL,
    PRIMARY KEY (session, slot)
) WITHOUT ROWID;
