-- What was found out of a device: switches of its dialect, and what it does not know. JSON; empty: nothing.

ALTER TABLE devices ADD COLUMN learnt TEXT NOT NULL DEFAULT '';
