/**
 * The schema on SQLite, step by step. A step that was published never changes.
 *
 * Every index but those on ids is partial, so that it holds only what somebody waits for: the messages that are
 * ready, those that become due, the tasks that expire. Finished tasks are in none but that of their removal.
 */
import type { Migration } from "./Migration.ts"
import { flags, readable } from "./readable.ts"

/** In order. */
export const sqliteMigrations: ReadonlyArray<Migration> = [
  {
    id: 1,
    name: "tasks and messages",
    statements: (table) => [
      `CREATE TABLE ${table("tasks")} (
        pk INTEGER PRIMARY KEY,
        id TEXT NOT NULL,
        task TEXT NOT NULL,
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
        enqueued_at INTEGER,
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
        body ANY CHECK (typeof(body) IN ('null', 'text', 'blob')),
        ${readable("generation", "attempt", "retries", "crashes", "fence")},
        ${readable("enqueued_at", "started_at", "finished_at", "expires_at", "due_at", "lease_until", "check_at")},
        ${readable("retention", "letter_retention", "remove_at")},
        ${flags("published", "at_most_once", "cancel_requested")}
      ) STRICT`,
      `CREATE UNIQUE INDEX ${table("tasks_id")} ON ${table("tasks")} (id)`,
      `CREATE UNIQUE INDEX ${table("tasks_key")} ON ${table("tasks")} (task, idempotency_key)
        WHERE idempotency_key IS NOT NULL`,
      `CREATE INDEX ${table("tasks_check")} ON ${table("tasks")} (check_at) WHERE check_at IS NOT NULL`,

      `CREATE TABLE ${table("dead_letters")} (
        pk INTEGER PRIMARY KEY,
        id TEXT NOT NULL,
        task_id TEXT,
        task TEXT,
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
        ${readable("pk", "generation", "attempts", "at", "task_retention", "fence", "remove_at")}
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
        ${readable("started_at", "seen_at", "until")}
      ) STRICT`,

      // processes that wait for tasks, and what they are told
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
        wake_at INTEGER,
        claim TEXT,
        reason TEXT,
        id TEXT NOT NULL,
        task TEXT NOT NULL,
        generation INTEGER NOT NULL,
        body ANY NOT NULL CHECK (typeof(body) IN ('text', 'blob')),
        ${readable("seq", "due_at", "wake_at", "generation")}
      ) STRICT`,
      `CREATE INDEX ${table("messages_ready")} ON ${table("messages")} (queue, priority DESC, due_at) WHERE state = 0`,
      `CREATE INDEX ${table("messages_wake")} ON ${table("messages")} (queue, wake_at) WHERE wake_at IS NOT NULL`
    ]
  }
]
