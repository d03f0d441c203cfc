-- Who may do what at the broker. Read and written by penstock.server.access.book only.
CREATE TABLE namespace (name TEXT PRIMARY KEY) WITHOUT ROWID;
INSERT INTO namespace VALUES ('/');

CREATE TABLE user (
    name TEXT PRIMARY KEY,
    password TEXT,                 -- argon2id, with its parameters and salt; NULL: token or certificate only
    generation INTEGER NOT NULL,   -- random, and another one after each change of password
    tags TEXT NOT NULL             -- separated by spaces
) WITHOUT ROWID;

CREATE TABLE permission (
    user TEXT NOT NULL REFERENCES user (name) ON DELETE CASCADE,
    namespace TEXT NOT NULL,       -- or * for all
    configure TEXT NOT NULL,
    write TEXT NOT NULL,
    read TEXT NOT NULL,
    PRIMARY KEY (user, namespace)
) WITHOUT ROWID;

CREATE TABLE token (
    id TEXT PRIMARY KEY,
    user TEXT NOT NULL REFERENCES user (name) ON DELETE CASCADE,
    digest BLOB NOT NULL,          -- SHA-256 of the secret, which is random and needs no slow hash
    created REAL NOT NULL,
    expires REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX token_user ON token (user);

-- The one-time credential of a broker that has no administrator yet; one row or none.
CREATE TABLE one_time (id INTEGER PRIMARY KEY CHECK (id = 1), digest BLOB NOT NULL, expires REAL NOT NULL);
