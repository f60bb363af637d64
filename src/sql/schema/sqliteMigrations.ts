/**
 * The migrations of SQLite. They are frozen: literal SQL that calls no other code.
 *
 * All indexes but those on ids are partial and hold only work that is still to come: messages that are ready, claimed or
 * become due, and tasks that are to be checked.
 */
import type { Migration } from "./Migration.ts"

/** The clock of the database in epoch milliseconds. */
const NOW = "CAST(unixepoch('subsec') * 1000 AS INTEGER)"

/** The migrations, in order of their ids. */
export const sqliteMigrations: ReadonlyArray<Migration> = [
  {
    id: 1,
    needs: 1,
    name: "tasks and messages",
    statements: (table) => [
      // cancel_requested: 0 no, 1 requested, 2 the message of the open run was withdrawn
      `CREATE TABLE ${table("tasks")} (
        pk INTEGER PRIMARY KEY,
        id TEXT NOT NULL,
        task TEXT NOT NULL,
        incarnation TEXT NOT NULL DEFAULT '',
        idempotency_key TEXT,
        payload_hash TEXT NOT NULL,
        published INTEGER NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('PENDING', 'STARTED', 'RETRY', 'SUCCESS', 'FAILURE')),
        generation INTEGER NOT NULL DEFAULT 0,
        attempt INTEGER NOT NULL DEFAULT 0,
        retries INTEGER NOT NULL DEFAULT 0,
        crashes INTEGER NOT NULL DEFAULT 0,
        fence INTEGER NOT NULL DEFAULT 0,
        token TEXT,
        worker TEXT,
        at_most_once INTEGER NOT NULL DEFAULT 0,
        cancel_requested INTEGER NOT NULL DEFAULT 0,
        ended TEXT CHECK (ended IN ('Expired', 'WorkerLost', 'Cancelled', 'Forgotten')),
        enqueued_at INTEGER NOT NULL,
        started_at INTEGER,
        finished_at INTEGER,
        expires_at INTEGER,
        due_at INTEGER,
        lease_until INTEGER,
        check_at INTEGER,
        retention INTEGER,
        letter_retention INTEGER,
        remove_at INTEGER,
        queue TEXT,
        progress TEXT,
        outcome TEXT,
        history TEXT,
        body_queue TEXT,
        body ANY CHECK (typeof(body) IN ('null', 'text', 'blob')),
        CHECK (generation BETWEEN 0 AND 8640000000000000 AND attempt BETWEEN 0 AND 8640000000000000 AND retries BETWEEN 0 AND 8640000000000000 AND crashes BETWEEN 0 AND 8640000000000000 AND fence BETWEEN 0 AND 8640000000000000),
        CHECK (enqueued_at BETWEEN 0 AND 8640000000000000 AND started_at BETWEEN 0 AND 8640000000000000 AND finished_at BETWEEN 0 AND 8640000000000000 AND expires_at BETWEEN 0 AND 8640000000000000 AND due_at BETWEEN 0 AND 8640000000000000 AND lease_until BETWEEN 0 AND 8640000000000000 AND check_at BETWEEN 0 AND 8640000000000000),
        CHECK (retention BETWEEN 0 AND 8640000000000000 AND letter_retention BETWEEN 0 AND 8640000000000000 AND remove_at BETWEEN 0 AND 8640000000000000),
        CHECK (published IN (0, 1) AND at_most_once IN (0, 1) AND cancel_requested BETWEEN 0 AND 2)
      ) STRICT`,
      `CREATE UNIQUE INDEX ${table("tasks_id")} ON ${table("tasks")} (id)`,
      `CREATE UNIQUE INDEX ${table("tasks_key")} ON ${table("tasks")} (task, idempotency_key)
        WHERE idempotency_key IS NOT NULL`,
      `CREATE INDEX ${table("tasks_check")} ON ${table("tasks")} (check_at) WHERE check_at IS NOT NULL`,

      // AUTOINCREMENT: a page is what is below a key, which no later dead letter may be
      `CREATE TABLE ${table("dead_letters")} (
        pk INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL,
        task_id TEXT,
        task TEXT,
        incarnation TEXT NOT NULL DEFAULT '',
        generation INTEGER NOT NULL,
        queue TEXT NOT NULL,
        reason TEXT NOT NULL,
        worker TEXT,
        attempts INTEGER NOT NULL,
        at INTEGER NOT NULL,
        task_retention INTEGER,
        fence INTEGER NOT NULL,
        remove_at INTEGER,
        outcome TEXT,
        body ANY NOT NULL CHECK (typeof(body) IN ('text', 'blob')),
        CHECK (pk BETWEEN 0 AND 8640000000000000 AND generation BETWEEN 0 AND 8640000000000000 AND attempts BETWEEN 0 AND 8640000000000000 AND at BETWEEN 0 AND 8640000000000000 AND task_retention BETWEEN 0 AND 8640000000000000 AND fence BETWEEN 0 AND 8640000000000000 AND remove_at BETWEEN 0 AND 8640000000000000)
      ) STRICT`,
      `CREATE UNIQUE INDEX ${table("dead_letters_id")} ON ${table("dead_letters")} (id)`,
      `CREATE INDEX ${table("dead_letters_task")} ON ${table("dead_letters")} (task, pk)`,
      `CREATE INDEX ${table("dead_letters_remove")} ON ${table("dead_letters")} (remove_at)
        WHERE remove_at IS NOT NULL`,

      `CREATE TABLE ${table("workers")} (
        id TEXT NOT NULL PRIMARY KEY,
        info TEXT NOT NULL,
        started_at INTEGER NOT NULL,
        seen_at INTEGER NOT NULL,
        until INTEGER NOT NULL,
        CHECK (started_at BETWEEN 0 AND 8640000000000000 AND seen_at BETWEEN 0 AND 8640000000000000 AND until BETWEEN 0 AND 8640000000000000)
      ) STRICT`,

      `CREATE TABLE ${table("documents")} (
        kind TEXT NOT NULL,
        id TEXT NOT NULL,
        version TEXT NOT NULL,
        value TEXT NOT NULL,
        PRIMARY KEY (kind, id)
      ) STRICT, WITHOUT ROWID`,

      // processes that subscribe to changes, and the changes
      `CREATE TABLE ${table("watchers")} (
        id TEXT NOT NULL PRIMARY KEY,
        until INTEGER NOT NULL
      ) STRICT`,
      `CREATE TABLE ${table("changes")} (
        seq INTEGER PRIMARY KEY,
        source TEXT NOT NULL,
        ids TEXT NOT NULL,
        at INTEGER NOT NULL
      ) STRICT`,

      // state: 0 ready, 1 delayed, 2 claimed, 3 parked
      `CREATE TABLE ${table("messages")} (
        seq INTEGER PRIMARY KEY,
        queue TEXT NOT NULL,
        priority INTEGER NOT NULL,
        state INTEGER NOT NULL CHECK (state BETWEEN 0 AND 3),
        due_at INTEGER NOT NULL,
        waits_since INTEGER,
        wake_at INTEGER,
        claim TEXT,
        reason TEXT,
        id TEXT NOT NULL,
        task TEXT NOT NULL,
        incarnation TEXT NOT NULL DEFAULT '',
        generation INTEGER NOT NULL,
        body ANY NOT NULL CHECK (typeof(body) IN ('text', 'blob')),
        CHECK (seq BETWEEN 0 AND 8640000000000000 AND due_at BETWEEN 0 AND 8640000000000000 AND waits_since BETWEEN 0 AND 8640000000000000 AND wake_at BETWEEN 0 AND 8640000000000000 AND generation BETWEEN 0 AND 8640000000000000)
      ) STRICT`,
      `CREATE INDEX ${table("messages_ready")} ON ${table("messages")} (queue, priority DESC, due_at) WHERE state = 0`,
      `CREATE INDEX ${table("messages_wake")} ON ${table("messages")} (queue, wake_at) WHERE wake_at IS NOT NULL`,
      `CREATE INDEX ${table("messages_delayed")} ON ${table("messages")} (id) WHERE state = 1`,
      `CREATE INDEX ${table("messages_claim")} ON ${table("messages")} (claim) WHERE state = 2`,

      // an insert into the view creates a record and publishes its message in one statement, without a transaction around it
      `CREATE VIEW ${table("enqueue")} AS SELECT NULL AS id, NULL AS task, NULL AS incarnation, NULL AS queue,
        NULL AS idempotency_key, NULL AS payload_hash, NULL AS reserved, NULL AS delay, NULL AS expires, NULL AS retention,
        NULL AS check_in, NULL AS generation, NULL AS priority, NULL AS body`,
      `CREATE TRIGGER ${table("enqueue_insert")} INSTEAD OF INSERT ON ${table("enqueue")} BEGIN
        INSERT INTO ${table("tasks")} (
          id, task, incarnation, queue, idempotency_key, payload_hash, published, state, enqueued_at, due_at, expires_at,
          retention, remove_at, check_at
        )
        VALUES (
          NEW.id, NEW.task, NEW.incarnation, NEW.queue, NEW.idempotency_key, NEW.payload_hash,
          CASE WHEN NEW.reserved IS NULL THEN 1 ELSE 0 END, 'PENDING', ${NOW},
          CASE WHEN NEW.delay > 0 THEN ${NOW} + NEW.delay END, ${NOW} + NEW.expires, NEW.retention,
          ${NOW} + NEW.reserved, ${NOW} + NEW.check_in
        );
        INSERT INTO ${table("messages")} (
          queue, priority, state, due_at, wake_at, id, task, incarnation, generation, body
        )
        VALUES (
          NEW.queue, NEW.priority, CASE WHEN NEW.delay > 0 THEN 1 ELSE 0 END, ${NOW} + NEW.delay,
          CASE WHEN NEW.delay > 0 THEN ${NOW} + NEW.delay END, NEW.id, NEW.task, NEW.incarnation, NEW.generation, NEW.body
        );
      END`
    ]
  }
]
