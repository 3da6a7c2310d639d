"""OPC UA: a server's tags, subscribed to and taken in columns."""
