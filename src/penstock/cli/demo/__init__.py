"""`penstock demo`: work done in advance, at the scale of a real job, with a worker process killed in the middle."""
