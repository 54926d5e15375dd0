-- Where a segment is beside the directory of recordings, and what is still to be done there.

ALTER TABLE recording_segments ADD COLUMN local INTEGER NOT NULL DEFAULT 1;
ALTER TABLE recording_segments ADD COLUMN object TEXT NOT NULL DEFAULT '';
ALTER TABLE recording_segments ADD COLUMN upload_due INTEGER;

CREATE INDEX recording_segments_to_upload ON recording_segments (upload_due) WHERE upload_due IS NOT NULL;
CREATE INDEX recording_segments_local ON recording_segments ("end", object) WHERE local=1 AND locked=0;

CREATE TABLE recording_objects_to_remove (
  name TEXT PRIMARY KEY
) WITHOUT ROWID;
