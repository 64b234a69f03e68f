BEGIN TRANSACTION;
CREATE TABLE acceptances (
	uid VARCHAR NOT NULL, 
	annotation_id INTEGER NOT NULL, 
	run VARCHAR NOT NULL, 
	task_id INTEGER NOT NULL, 
	content VARCHAR NOT NULL, 
	regions INTEGER NOT NULL, 
	accepted_at FLOAT NOT NULL, 
	PRIMARY KEY (uid, annotation_id)
);
INSERT INTO "acceptances" VALUES('7.1795453273',13,'r1',4,'df7ab292bacca58f7896db14dd992cf6c5b5fe2344c7ff4df86f44d56c83ca65',1,1795453299.0);
CREATE TABLE embeddings (
	uid VARCHAR NOT NULL, 
	task_id INTEGER NOT NULL, 
	version VARCHAR NOT NULL, 
	vector BLOB NOT NULL, 
	PRIMARY KEY (uid, task_id)
);
INSERT INTO "embeddings" VALUES('7.1795453273',1,'v1',X'0000000000000000');
CREATE TABLE hints (
	uid VARCHAR NOT NULL, 
	first_at FLOAT NOT NULL, 
	last_at FLOAT NOT NULL, 
	events INTEGER NOT NULL, 
	deletions BOOLEAN NOT NULL, 
	PRIMARY KEY (uid)
);
INSERT INTO "hints" VALUES('7.1795453273',1795453302.0,1795453303.0,2,1);
CREATE TABLE jobs (
	id VARCHAR NOT NULL, 
	uid VARCHAR NOT NULL, 
	status VARCHAR NOT NULL, 
	reason TEXT NOT NULL, 
	created_at FLOAT NOT NULL, 
	started_at FLOAT, 
	finished_at FLOAT, 
	epoch INTEGER, 
	epochs INTEGER, 
	message TEXT DEFAULT '' NOT NULL, 
	version VARCHAR DEFAULT '' NOT NULL, 
	cancel BOOLEAN DEFAULT 0 NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "jobs" VALUES('aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','7.1795453273','done','5 new annotations',1795453281.0,1795453282.0,1795453290.0,9,9,'promoted','v1',0);
INSERT INTO "jobs" VALUES('bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb','7.1795453273','running','asked for in Label Studio',1795453304.0,1795453305.0,NULL,3,9,'epoch 3 of 9','',0);
CREATE TABLE ledger (
	uid VARCHAR NOT NULL, 
	task_id INTEGER NOT NULL, 
	task_created_at FLOAT NOT NULL, 
	data JSON NOT NULL, 
	annotation_id INTEGER, 
	submitted_at FLOAT, 
	result JSON, 
	content VARCHAR, 
	seen VARCHAR, 
	PRIMARY KEY (uid, task_id)
);
INSERT INTO "ledger" VALUES('7.1795453273',1,1795453273.0,'{"image": "/data/1.jpg"}',11,1795453281.0,'[{"id": "a", "from_name": "label", "to_name": "image", "type": "rectanglelabels", "original_width": 64, "original_height": 48, "value": {"x": 10, "y": 10, "width": 20, "height": 30, "rectanglelabels": ["Disc"]}}]','cc004ac15e3b720b7bde0f1f3ac385bf39f81530e86656354b942e82964811ce','cc004ac15e3b720b7bde0f1f3ac385bf39f81530e86656354b942e82964811ce');
INSERT INTO "ledger" VALUES('7.1795453273',2,1795453273.0,'{"image": "/data/2.jpg"}',12,1795453282.0,'[{"id": "a", "from_name": "label", "to_name": "image", "type": "rectanglelabels", "original_width": 64, "original_height": 48, "value": {"x": 10, "y": 10, "width": 20, "height": 30, "rectanglelabels": ["Disc"]}}]','a6670ade030c868b6fb29e79feb76d3e6a20fc4700e65d985d12e0ad6442f9d2',NULL);
INSERT INTO "ledger" VALUES('7.1795453273',3,1795453273.0,'{"image": "/data/3.jpg"}',NULL,NULL,NULL,NULL,NULL);
CREATE TABLE outcomes (
	uid VARCHAR NOT NULL, 
	annotation_id INTEGER NOT NULL, 
	region_id VARCHAR NOT NULL, 
	control VARCHAR NOT NULL, 
	label VARCHAR NOT NULL, 
	outcome VARCHAR NOT NULL, 
	score FLOAT, 
	iou FLOAT, 
	PRIMARY KEY (uid, annotation_id, region_id)
);
INSERT INTO "outcomes" VALUES('7.1795453273',12,'a','label','Disc','moved',0.9,0.8);
CREATE TABLE projects (
	uid VARCHAR NOT NULL, 
	label_config TEXT DEFAULT '' NOT NULL, 
	title VARCHAR DEFAULT '' NOT NULL, 
	url VARCHAR DEFAULT '' NOT NULL, 
	api_key VARCHAR DEFAULT '' NOT NULL, 
	hostname VARCHAR DEFAULT '' NOT NULL, 
	access_token VARCHAR DEFAULT '' NOT NULL, 
	baseline VARCHAR DEFAULT '' NOT NULL, 
	cursor FLOAT, 
	synced_at FLOAT, 
	sync_error TEXT DEFAULT '' NOT NULL, 
	waiting_for TEXT DEFAULT '' NOT NULL, 
	active_learning BOOLEAN DEFAULT 0 NOT NULL, 
	backend_url VARCHAR DEFAULT '' NOT NULL, 
	PRIMARY KEY (uid)
);
INSERT INTO "projects" VALUES('7.1795453273','<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image"><Label value="Disc"/></RectangleLabels></View>','Discs','http://studio:8080','0000000000000000000000000000000000000000','http://studio:8080','','1a2b3c',1795453300.5,1795453301.5,'','1 of 5 new annotations',0,'');
CREATE TABLE refreshes (
	uid VARCHAR NOT NULL, 
	"key" VARCHAR NOT NULL, 
	version VARCHAR DEFAULT '' NOT NULL, 
	tasks INTEGER DEFAULT '0' NOT NULL, 
	total INTEGER DEFAULT '0' NOT NULL, 
	done INTEGER DEFAULT '0' NOT NULL, 
	failed INTEGER DEFAULT '0' NOT NULL, 
	outdated INTEGER DEFAULT '0' NOT NULL, 
	started_at FLOAT, 
	finished_at FLOAT, 
	message TEXT DEFAULT '' NOT NULL, 
	PRIMARY KEY (uid)
);
INSERT INTO "refreshes" VALUES('7.1795453273','1:abcdef','v1',3,1,1,0,0,1795453291.0,1795453292.0,'');
CREATE TABLE shown (
	uid VARCHAR NOT NULL, 
	annotation_id INTEGER NOT NULL, 
	task_id INTEGER NOT NULL, 
	version VARCHAR NOT NULL, 
	submitted_at FLOAT NOT NULL, 
	lead_time FLOAT, 
	PRIMARY KEY (uid, annotation_id)
);
INSERT INTO "shown" VALUES('7.1795453273',12,2,'v1',1795453282.0,7.5);
CREATE TABLE thumbnails (
	uid VARCHAR NOT NULL, 
	"key" VARCHAR NOT NULL, 
	pixels BLOB NOT NULL, 
	"group" VARCHAR NOT NULL, 
	PRIMARY KEY (uid, "key")
);
INSERT INTO "thumbnails" VALUES('7.1795453273','k1',X'000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F202122232425262728292A2B2C2D2E2F303132333435363738393A3B3C3D3E3F404142434445464748494A4B4C4D4E4F505152535455565758595A5B5C5D5E5F606162636465666768696A6B6C6D6E6F707172737475767778797A7B7C7D7E7F808182838485868788898A8B8C8D8E8F909192939495969798999A9B9C9D9E9FA0A1A2A3A4A5A6A7A8A9AAABACADAEAFB0B1B2B3B4B5B6B7B8B9BABBBCBDBEBFC0C1C2C3C4C5C6C7C8C9CACBCCCDCECFD0D1D2D3D4D5D6D7D8D9DADBDCDDDEDFE0E1E2E3E4E5E6E7E8E9EAEBECEDEEEFF0F1F2F3F4F5F6F7F8F9FAFBFCFDFEFF','k1');
CREATE INDEX ix_jobs_uid ON jobs (uid);
CREATE UNIQUE INDEX one_unfinished_job ON jobs (uid) WHERE finished_at IS NULL;
CREATE INDEX ix_acceptances_run ON acceptances (run);
CREATE INDEX ix_thumbnails_group ON thumbnails ("group");
COMMIT;
