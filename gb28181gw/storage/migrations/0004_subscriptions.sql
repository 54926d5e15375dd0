-- What devices granted us, and what they do not know (record empty): one row a wish. Times are milliseconds.

ALTER TABLE devices ADD COLUMN subscribe TEXT;

CREATE TABLE subscriptions (
  device_id TEXT NOT NULL,
  kind TEXT NOT NULL,
  target TEXT NOT NULL,
  event TEXT NOT NULL,
  record TEXT NOT NULL,
  until INTEGER NOT NULL,
  note TEXT NOT NULL,
  PRIMARY KEY (device_id, kind, target)
) WITHOUT ROWID;

-- Where cameras looked when they told last: one row a camera.
CREATE TABLE ptz_positions (
  device_id TEXT NOT NULL,
  channel_id TEXT NOT NULL,
  received_at INTEGER NOT NULL,
  pan REAL,
  tilt REAL,
  zoom REAL,
  horizontal_angle REAL,
  vertical_angle REAL,
  max_distance REAL,
  PRIMARY KEY (device_id, channel_id)
) WITHOUT ROWID;

-- Pictures that devices uploaded; the files lie beside the database.
CREATE TABLE snapshots (
  id TEXT PRIMARY KEY,
  session_id TEXT NOT NULL,
  device_id TEXT NOT NULL,
  channel_id TEXT NOT NULL,
  received_at INTEGER NOT NULL,
  content_type TEXT NOT NULL,
  size INTEGER NOT NULL,
  name TEXT NOT NULL
) WITHOUT ROWID;

CREATE INDEX snapshots_by_time ON snapshots (received_at);
