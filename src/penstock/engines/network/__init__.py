"""What the engines of network servers share: the loop thread, addresses, retries, start marks. It knows no server."""
