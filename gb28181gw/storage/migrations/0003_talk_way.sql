-- The way of talking to a device that worked last.

ALTER TABLE devices ADD COLUMN talk_way TEXT NOT NULL DEFAULT '';
