/**
 * The schema on PostgreSQL, step by step. A step that was published never changes.
 *
 * - Every index but those on ids is partial. Nothing of what a start and an end write to a task is indexed, and there is
 *   room in a page for both, so neither touches an index.
 * - The tables have some pages from the beginning, and keep them: a planner that takes a table for empty would read
 *   all of it, and go on so with a plan that it has prepared when the table is no longer empty.
 */
import { createClaimFunction } from "./claimFunction.ts"
import type { Migration } from "./Migration.ts"
import { flags, readable } from "./readable.ts"

/** Fills pages, and empties them again. */
const fill = (table: string, columns: string, values: string): ReadonlyArray<string> => [
  `INSERT INTO ${table} (${columns}) SELECT ${values} FROM generate_series(1, 1000) AS n`,
  `DELETE FROM ${table}`
]

const FILLING = "repeat(md5(n::text), 30)"

/** In order. */
export const postgresMigrations: ReadonlyArray<Migration> = [
  {
    id: 1,
    name: "tasks and messages",
    statements: (table) => [
      `CREATE TABLE ${table("tasks")} (
        id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
        task TEXT COLLATE "C" NOT NULL,
        idempotency_key TEXT COLLATE "C",
        payload_hash TEXT COLLATE "C" NOT NULL,
        published SMALLINT NOT NULL,
        state TEXT COLLATE "C" NOT NULL CHECK (state IN ('PENDING', 'STARTED', 'RETRY', 'SUCCESS', 'FAILURE')),
        generation BIGINT NOT NULL DEFAULT 0,
        attempt BIGINT NOT NULL DEFAULT 0,
        retries BIGINT NOT NULL DEFAULT 0,
        crashes BIGINT NOT NULL DEFAULT 0,
        fence BIGINT NOT NULL DEFAULT 0,
        token TEXT COLLATE "C",
        worker TEXT COLLATE "C",
        at_most_once SMALLINT NOT NULL DEFAULT 0,
        cancel_requested SMALLINT NOT NULL DEFAULT 0,
        ended TEXT COLLATE "C" CHECK (ended IN ('Expired', 'WorkerLost', 'Cancelled', 'Forgotten')),
        enqueued_at BIGINT,
        started_at BIGINT,
        finished_at BIGINT,
        expires_at BIGINT,
        due_at BIGINT,
        lease_until BIGINT,
        check_at BIGINT,
        retention BIGINT,
        letter_retention BIGINT,
        remove_at BIGINT,
        queue TEXT COLLATE "C",
        progress TEXT COLLATE "C",
        outcome TEXT COLLATE "C",
        body TEXT COLLATE "C",
        ${readable("generation", "attempt", "retries", "crashes", "fence")},
        ${readable("enqueued_at", "started_at", "finished_at", "expires_at", "due_at", "lease_until", "check_at")},
        ${readable("retention", "letter_retention", "remove_at")},
        ${flags("published", "at_most_once", "cancel_requested")}
      ) WITH (fillfactor = 30, vacuum_truncate = false)`,
      `CREATE UNIQUE INDEX ${table("tasks_key")} ON ${table("tasks")} (task, idempotency_key)
        WHERE idempotency_key IS NOT NULL`,
      `CREATE INDEX ${table("tasks_check")} ON ${table("tasks")} (check_at) WHERE check_at IS NOT NULL`,

      `CREATE TABLE ${table("dead_letters")} (
        pk BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        id TEXT COLLATE "C" NOT NULL,
        task_id TEXT COLLATE "C",
        task TEXT COLLATE "C",
        generation BIGINT NOT NULL,
        queue TEXT COLLATE "C" NOT NULL,
        reason TEXT COLLATE "C" NOT NULL,
        worker TEXT COLLATE "C",
        attempts BIGINT NOT NULL,
        at BIGINT NOT NULL,
        task_retention BIGINT,
        fence BIGINT NOT NULL,
        remove_at BIGINT,
        outcome TEXT COLLATE "C",
        body TEXT COLLATE "C" NOT NULL,
        ${readable("pk", "generation", "attempts", "at", "task_retention", "fence", "remove_at")}
      )`,
      `CREATE UNIQUE INDEX ${table("dead_letters_id")} ON ${table("dead_letters")} (id)`,
      `CREATE INDEX ${table("dead_letters_task")} ON ${table("dead_letters")} (task, pk)`,
      `CREATE INDEX ${table("dead_letters_remove")} ON ${table("dead_letters")} (remove_at)
        WHERE remove_at IS NOT NULL`,

      `CREATE TABLE ${table("workers")} (
        id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
        info TEXT NOT NULL,
        started_at BIGINT NOT NULL,
        seen_at BIGINT NOT NULL,
        until BIGINT NOT NULL,
        ${readable("started_at", "seen_at", "until")}
      )`,

      // processes that are to be notified
      `CREATE TABLE ${table("listeners")} (
        id TEXT COLLATE "C" NOT NULL,
        topic TEXT COLLATE "C" NOT NULL,
        until BIGINT NOT NULL,
        PRIMARY KEY (id, topic)
      )`,

      // state: 0 ready, 1 delayed, 2 claimed, 3 parked
      `CREATE TABLE ${table("messages")} (
        seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        queue TEXT COLLATE "C" NOT NULL,
        priority SMALLINT NOT NULL,
        state SMALLINT NOT NULL CHECK (state BETWEEN 0 AND 3),
        due_at BIGINT NOT NULL,
        wake_at BIGINT,
        claim TEXT COLLATE "C",
        reason TEXT COLLATE "C",
        id TEXT COLLATE "C" NOT NULL,
        task TEXT COLLATE "C" NOT NULL,
        generation BIGINT NOT NULL,
        body TEXT COLLATE "C" NOT NULL,
        ${readable("seq", "due_at", "wake_at", "generation")}
      ) WITH (
        vacuum_truncate = false,
        autovacuum_vacuum_scale_factor = 0.02,
        autovacuum_vacuum_cost_delay = 0
      )`,
      `CREATE INDEX ${table("messages_ready")} ON ${table("messages")} (queue, priority DESC, due_at, seq)
        WHERE state = 0`,
      `CREATE INDEX ${table("messages_wake")} ON ${table("messages")} (queue, wake_at) WHERE wake_at IS NOT NULL`,

      createClaimFunction(table),

      ...fill(
        table("tasks"),
        "id, task, payload_hash, published, state, progress",
        `'filling ' || n, '', '', 1, 'PENDING', ${FILLING}`
      ),
      ...fill(
        table("messages"),
        "queue, priority, state, due_at, id, task, generation, body",
        `'', 0, 3, 0, '', '', 0, ${FILLING}`
      )
    ]
  }
]
