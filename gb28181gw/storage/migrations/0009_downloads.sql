-- Downloads that are not over: they go on with the next start, in the order of asking.

CREATE TABLE downloads (
  id TEXT PRIMARY KEY,
  created_at REAL NOT NULL,
  device_id TEXT NOT NULL,
  channel_id TEXT NOT NULL,
  start INTEGER NOT NULL,
  end INTEGER NOT NULL,
  speed REAL NOT NULL,
  transport TEXT NOT NULL,
  centre INTEGER NOT NULL,
  original INTEGER NOT NULL
) WITHOUT ROWID;
