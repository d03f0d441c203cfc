"""A program that is not penstock: opens the file, reads, closes, with SQLite's defaults."""

import sys

import apsw

connection = apsw.Connection(sys.argv[1])
print(connection.execute("SELECT count(*) FROM task").fetchall()[0][0])
connection.close()
