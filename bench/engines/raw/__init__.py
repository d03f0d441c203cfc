"""What the engines are held against: loops as one would write them by hand, with the fastest client for each server.

Each takes batches of 100 and does in one round trip what is durable: store the results of the batch, delete it, take
the next one. No retries, no limits, no look-up by id, no reaper for what a dead worker held.
"""
