-- Under which name a segment is brought to the object store, decided before that begins.

ALTER TABLE recording_segments ADD COLUMN upload_name TEXT NOT NULL DEFAULT '';
