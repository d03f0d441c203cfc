"""Beat: publishes periodic tasks when they are due, once each, however many beats run.

`line`, `missed`, `agenda`, `backlog` and `reconcile` decide, purely; `term` and `beat` do; `stored` is what the broker
keeps. Nothing is imported here: every app reads its timetable (`written`), few lead.
"""
