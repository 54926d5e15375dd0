-- Times are integers: milliseconds since 1970 UTC (quirk TM-04). Lists and small maps are JSON text.

CREATE TABLE devices (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL DEFAULT '',
  password TEXT,
  media_transport TEXT NOT NULL DEFAULT 'auto',
  charset TEXT NOT NULL DEFAULT '',
  timezone TEXT NOT NULL DEFAULT '',
  dialect TEXT NOT NULL DEFAULT '',
  approved INTEGER NOT NULL DEFAULT 1,
  provisioned INTEGER NOT NULL DEFAULT 0,
  username TEXT NOT NULL DEFAULT '',
  manufacturer TEXT NOT NULL DEFAULT '',
  model TEXT NOT NULL DEFAULT '',
  firmware TEXT NOT NULL DEFAULT '',
  reported_name TEXT NOT NULL DEFAULT '',
  detected_edition TEXT NOT NULL DEFAULT '',
  media_way TEXT NOT NULL DEFAULT '',
  quirks TEXT NOT NULL DEFAULT '{}',
  catalogue_state TEXT NOT NULL DEFAULT '',
  catalogue_received INTEGER NOT NULL DEFAULT 0,
  catalogue_expected INTEGER,
  catalogue_at INTEGER,
  created_at INTEGER NOT NULL
) WITHOUT ROWID;

-- What a verified REGISTER fixed (`devices/binding.py`), with the nonce state that forbids its replay. The row
-- of a device that unregistered stays, with active = 0: its nonces must stay used.
CREATE TABLE bindings (
  device_id TEXT PRIMARY KEY,
  active INTEGER NOT NULL,
  transport TEXT NOT NULL,
  remote_host TEXT NOT NULL,
  remote_port INTEGER NOT NULL,
  local_host TEXT NOT NULL,
  local_port INTEGER NOT NULL,
  registered_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  domain TEXT NOT NULL,
  call_id TEXT NOT NULL,
  cseq INTEGER NOT NULL,
  contact TEXT NOT NULL,
  user_agent TEXT NOT NULL,
  edition TEXT NOT NULL,
  nonce TEXT NOT NULL,
  nonce_minted_at INTEGER NOT NULL,
  nonce_count INTEGER NOT NULL,
  networks TEXT NOT NULL,
  last_seen_at INTEGER NOT NULL,
  keepalive_s INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE channels (
  device_id TEXT NOT NULL,
  id TEXT NOT NULL,
  name TEXT NOT NULL,
  kind TEXT NOT NULL,
  status TEXT NOT NULL,
  ptz_type TEXT NOT NULL,
  parental INTEGER,
  parent_ids TEXT NOT NULL,
  group_id TEXT NOT NULL,
  civil_code TEXT NOT NULL,
  block TEXT NOT NULL,
  address TEXT NOT NULL,
  owner TEXT NOT NULL,
  manufacturer TEXT NOT NULL,
  model TEXT NOT NULL,
  longitude REAL,
  latitude REAL,
  ip_address TEXT NOT NULL,
  port INTEGER,
  register_way INTEGER,
  secrecy INTEGER,
  details TEXT NOT NULL,
  fault TEXT NOT NULL,
  implicit INTEGER NOT NULL,
  missed INTEGER NOT NULL,
  gone INTEGER NOT NULL,
  PRIMARY KEY (device_id, id)
) WITHOUT ROWID;

CREATE TABLE bans (
  ip TEXT NOT NULL,
  device_id TEXT NOT NULL,
  until INTEGER NOT NULL,
  level INTEGER NOT NULL,
  PRIMARY KEY (ip, device_id)
) WITHOUT ROWID;

CREATE TABLE calls (
  id TEXT PRIMARY KEY,
  device_id TEXT NOT NULL,
  record TEXT NOT NULL,
  updated_at INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE keys (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  role TEXT NOT NULL,
  hash TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  expires_at INTEGER
) WITHOUT ROWID;

CREATE TABLE settings (
  key TEXT PRIMARY KEY,
  value TEXT NOT NULL
) WITHOUT ROWID;
