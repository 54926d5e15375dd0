-- Upper platforms, and under which ids they know our channels.

CREATE TABLE uppers (
  id TEXT PRIMARY KEY,
  settings TEXT NOT NULL,
  share_all INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

CREATE TABLE upper_shares (
  upper_id TEXT NOT NULL,
  device_id TEXT NOT NULL,
  channel_id TEXT NOT NULL,
  shared_id TEXT NOT NULL,
  PRIMARY KEY (upper_id, device_id, channel_id)
) WITHOUT ROWID;

CREATE UNIQUE INDEX upper_shares_by_id ON upper_shares (upper_id, shared_id);
