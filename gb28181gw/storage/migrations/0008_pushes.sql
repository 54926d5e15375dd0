-- Channels that are pushed to a URL.

CREATE TABLE pushes (
  id TEXT PRIMARY KEY,
  device_id TEXT NOT NULL,
  channel_id TEXT NOT NULL,
  url TEXT NOT NULL,
  video INTEGER NOT NULL,
  audio INTEGER NOT NULL
) WITHOUT ROWID;
