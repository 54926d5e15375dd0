-- What is recorded, and the index of the files. Times are milliseconds since 1970.

CREATE TABLE recording_plans (
  device_id TEXT NOT NULL,
  channel_id TEXT NOT NULL,
  plan TEXT NOT NULL,
  PRIMARY KEY (device_id, channel_id)
) WITHOUT ROWID;

CREATE TABLE recording_segments (
  id TEXT PRIMARY KEY,
  device_id TEXT NOT NULL,
  channel_id TEXT NOT NULL,
  start INTEGER NOT NULL,
  "end" INTEGER,
  size INTEGER NOT NULL,
  file TEXT NOT NULL,
  form TEXT NOT NULL,
  cause TEXT NOT NULL,
  locked INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

CREATE INDEX recording_segments_by_channel ON recording_segments (device_id, channel_id, start);
CREATE INDEX recording_segments_by_age ON recording_segments (locked, "end");
