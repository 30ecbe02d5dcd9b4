"""Published numbers, our measurements that match them, and tables of both."""
