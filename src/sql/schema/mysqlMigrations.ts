/**
 * The migrations of MariaDB. They are frozen: literal SQL that calls no other code.
 *
 * MariaDB commits every schema change by itself, so a migration may stop half-way: each statement can be repeated. It
 * allows no check on an auto-increment column, and has no partial indexes: `delayed_id` is the id of a message that is
 * delayed, and NULL otherwise. It is stored, since a purge has to compute a virtual column anew.
 */
import type { Migration } from "./Migration.ts"

/** The migrations, in order of their ids. */
export const mysqlMigrations: ReadonlyArray<Migration> = [
  {
    id: 1,
    needs: 1,
    name: "tasks and messages",
    statements: (table) => [
      // cancel_requested: 0 no, 1 requested, 2 the message of the open run was withdrawn
      `CREATE TABLE IF NOT EXISTS ${table("tasks")} (
        id VARCHAR(255) NOT NULL PRIMARY KEY,
        task VARCHAR(255) NOT NULL,
        incarnation VARCHAR(32) NOT NULL DEFAULT '',
        idempotency_key VARCHAR(255),
        payload_hash VARCHAR(64) NOT NULL,
        published TINYINT NOT NULL,
        state VARCHAR(8) NOT NULL CHECK (state IN ('PENDING', 'STARTED', 'RETRY', 'SUCCESS', 'FAILURE')),
        generation BIGINT NOT NULL DEFAULT 0,
        attempt BIGINT NOT NULL DEFAULT 0,
        retries BIGINT NOT NULL DEFAULT 0,
        crashes BIGINT NOT NULL DEFAULT 0,
        fence BIGINT NOT NULL DEFAULT 0,
        token VARCHAR(512),
        worker VARCHAR(512),
        at_most_once TINYINT NOT NULL DEFAULT 0,
        cancel_requested TINYINT NOT NULL DEFAULT 0,
        ended VARCHAR(10) CHECK (ended IN ('Expired', 'WorkerLost', 'Cancelled', 'Forgotten')),
        enqueued_at BIGINT NOT NULL,
        started_at BIGINT,
        finished_at BIGINT,
        expires_at BIGINT,
        due_at BIGINT,
        lease_until BIGINT,
        check_at BIGINT,
        retention BIGINT,
        letter_retention BIGINT,
        remove_at BIGINT,
        queue VARCHAR(255),
        progress LONGTEXT,
        outcome LONGTEXT,
        history TEXT,
        body_queue VARCHAR(255),
        body LONGTEXT,
        UNIQUE KEY tasks_key (task, idempotency_key),
        KEY tasks_check (check_at),
        CHECK (generation BETWEEN 0 AND 8640000000000000 AND attempt BETWEEN 0 AND 8640000000000000 AND retries BETWEEN 0 AND 8640000000000000 AND crashes BETWEEN 0 AND 8640000000000000 AND fence BETWEEN 0 AND 8640000000000000),
        CHECK (enqueued_at BETWEEN 0 AND 8640000000000000 AND started_at BETWEEN 0 AND 8640000000000000 AND finished_at BETWEEN 0 AND 8640000000000000 AND expires_at BETWEEN 0 AND 8640000000000000 AND due_at BETWEEN 0 AND 8640000000000000 AND lease_until BETWEEN 0 AND 8640000000000000 AND check_at BETWEEN 0 AND 8640000000000000),
        CHECK (retention BETWEEN 0 AND 8640000000000000 AND letter_retention BETWEEN 0 AND 8640000000000000 AND remove_at BETWEEN 0 AND 8640000000000000),
        CHECK (published IN (0, 1) AND at_most_once IN (0, 1) AND cancel_requested BETWEEN 0 AND 2)
      ) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin`,

      `CREATE TABLE IF NOT EXISTS ${table("dead_letters")} (
        pk BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
        id VARCHAR(512) NOT NULL,
        task_id VARCHAR(255),
        task VARCHAR(255),
        incarnation VARCHAR(32) NOT NULL DEFAULT '',
        generation BIGINT NOT NULL,
        queue VARCHAR(255) NOT NULL,
        reason VARCHAR(255) NOT NULL,
        worker VARCHAR(512),
        attempts BIGINT NOT NULL,
        at BIGINT NOT NULL,
        task_retention BIGINT,
        fence BIGINT NOT NULL,
        remove_at BIGINT,
        outcome LONGTEXT,
        body LONGTEXT NOT NULL,
        UNIQUE KEY dead_letters_id (id),
        KEY dead_letters_task (task, pk),
        KEY dead_letters_remove (remove_at),
        CHECK (generation BETWEEN 0 AND 8640000000000000 AND attempts BETWEEN 0 AND 8640000000000000 AND at BETWEEN 0 AND 8640000000000000 AND task_retention BETWEEN 0 AND 8640000000000000 AND fence BETWEEN 0 AND 8640000000000000 AND remove_at BETWEEN 0 AND 8640000000000000)
      ) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin`,

      `CREATE TABLE IF NOT EXISTS ${table("workers")} (
        id VARCHAR(512) NOT NULL PRIMARY KEY,
        info LONGTEXT NOT NULL,
        started_at BIGINT NOT NULL,
        seen_at BIGINT NOT NULL,
        until BIGINT NOT NULL,
        CHECK (started_at BETWEEN 0 AND 8640000000000000 AND seen_at BETWEEN 0 AND 8640000000000000 AND until BETWEEN 0 AND 8640000000000000)
      ) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin`,

      `CREATE TABLE IF NOT EXISTS ${table("documents")} (
        kind VARCHAR(32) NOT NULL,
        id VARCHAR(255) NOT NULL,
        version VARCHAR(36) NOT NULL,
        value MEDIUMTEXT NOT NULL,
        PRIMARY KEY (kind, id)
      ) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin`,

      // processes that wait, by topic
      `CREATE TABLE IF NOT EXISTS ${table("listeners")} (
        topic VARCHAR(300) NOT NULL,
        id VARCHAR(64) NOT NULL,
        until BIGINT NOT NULL,
        PRIMARY KEY (topic, id),
        CHECK (until BETWEEN 0 AND 8640000000000000)
      ) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin`,

      // what they have not read yet; nr is a random number
      `CREATE TABLE IF NOT EXISTS ${table("notifications")} (
        id VARCHAR(64) NOT NULL,
        at BIGINT NOT NULL,
        nr BIGINT NOT NULL,
        payload TEXT NOT NULL,
        PRIMARY KEY (id, at, nr),
        CHECK (at BETWEEN 0 AND 8640000000000000 AND nr BETWEEN 0 AND 8640000000000000)
      ) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin`,

      // state: 0 ready, 1 delayed, 2 claimed, 3 parked
      `CREATE TABLE IF NOT EXISTS ${table("messages")} (
        seq BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
        queue VARCHAR(255) NOT NULL,
        priority SMALLINT NOT NULL,
        state TINYINT NOT NULL CHECK (state BETWEEN 0 AND 3),
        due_at BIGINT NOT NULL,
        waits_since BIGINT,
        wake_at BIGINT,
        claim VARCHAR(512),
        reason VARCHAR(255),
        id VARCHAR(255) NOT NULL,
        task VARCHAR(255) NOT NULL,
        incarnation VARCHAR(32) NOT NULL DEFAULT '',
        generation BIGINT NOT NULL,
        body LONGTEXT NOT NULL,
        delayed_id VARCHAR(255) AS (CASE WHEN state = 1 THEN id END) STORED,
        KEY messages_ready (queue, state, priority DESC, due_at, seq, task),
        KEY messages_wake (queue, wake_at),
        KEY messages_delayed (delayed_id),
        KEY messages_claim (claim),
        CHECK (due_at BETWEEN 0 AND 8640000000000000 AND waits_since BETWEEN 0 AND 8640000000000000 AND wake_at BETWEEN 0 AND 8640000000000000 AND generation BETWEEN 0 AND 8640000000000000)
      ) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin`
    ]
  }
]
