-- What devices reported by themselves. Ids grow with the order of arrival.

CREATE TABLE alarms (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  device_id TEXT NOT NULL,
  channel_id TEXT NOT NULL,
  priority INTEGER,
  method INTEGER,
  type TEXT NOT NULL,
  event_type TEXT NOT NULL,
  time INTEGER NOT NULL,
  received_at INTEGER NOT NULL,
  description TEXT NOT NULL,
  longitude REAL,
  latitude REAL
);

CREATE INDEX alarms_by_time ON alarms (time);

CREATE TABLE positions (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  device_id TEXT NOT NULL,
  channel_id TEXT NOT NULL,
  time INTEGER NOT NULL,
  received_at INTEGER NOT NULL,
  longitude REAL NOT NULL,
  latitude REAL NOT NULL,
  speed REAL,
  direction REAL,
  altitude REAL,
  height REAL
);

CREATE INDEX positions_by_time ON positions (time);
CREATE INDEX positions_by_source ON positions (device_id, channel_id, id);
