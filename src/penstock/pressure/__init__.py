"""Back pressure: how long a queue may be, so that what it accepts is done in time."""
