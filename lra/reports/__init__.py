"""Reports of records: the tables, their formats, and how things are named in them."""
