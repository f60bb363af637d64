/**
 * The migrations of PostgreSQL. They are frozen: literal SQL that calls no other code.
 *
 * - All indexes but those on ids are partial. No column that a start or an end of a task writes is indexed, and a page
 *   has room for both row versions, so that neither touches an index.
 * - What a column may hold is checked by its domain. PostgreSQL parses the checks of a table anew for every statement that writes
 *   to it, which took two thirds of its time for an enqueue; those of a domain it keeps for the session. A column that is an
 *   identity can have no domain.
 * - The tables begin with some empty pages and keep them: the planner scans a table that it takes for empty, and a
 *   prepared plan keeps doing so when the table has grown.
 */
import type { Migration } from "./Migration.ts"

/** The clock of the database in epoch milliseconds. The subselect is evaluated once a statement. */
const NOW = "(SELECT (date_part('epoch', clock_timestamp()) * 1000)::bigint)"

/**
 * The function that claims messages and starts their tasks in one statement (S10, without a lapsed lease and without a
 * newer generation).
 *
 * It is a function for the sake of its plan. A statement with `LIMIT` as a parameter is either planned anew each time,
 * which costs a fifth of a claim, or planned by statistics that say nothing about a queue: empty now, 100,000 messages
 * in a minute, all of which would then be sorted for every claim. The function is planned once a session, along the
 * indexes.
 *
 * It returns a row for each claimed message, and another for each started task, which repeats the message's `seq`. If
 * `p_looks` and a delay or a lease of the queues is over, it claims nothing and returns one row with `due` = 1.
 *
 * It ends before its bodies have more than `p_bytes`, but takes one message at least if `p_least` is 1 and not 0, and returns
 * one row more with `due` = 2 if it left messages for that reason. A body of more than `p_body` bytes is not returned, and
 * not counted.
 */
const createClaimFunction = (table: (name: string) => string): string =>
  `CREATE FUNCTION ${table("claim_1")} (
  p_looks BOOLEAN, p_queues TEXT[], p_max BIGINT, p_least BIGINT, p_bytes BIGINT, p_body BIGINT, p_lease BIGINT,
  p_claim TEXT, p_worker TEXT, p_tasks TEXT[], p_leases BIGINT[], p_retentions BIGINT[], p_letters BIGINT[]
) RETURNS TABLE (
  due INTEGER, seq BIGINT, id TEXT, task TEXT, incarnation TEXT, generation BIGINT, queue TEXT, priority SMALLINT,
  due_at BIGINT, waits_since BIGINT, size INTEGER, body TEXT, fence BIGINT, attempt BIGINT, retries BIGINT, crashes BIGINT, now BIGINT
) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off
SET jit = off
AS $claim$
#variable_conflict use_column
DECLARE
  v_seqs BIGINT[];
  v_bytes BIGINT;
  v_left BIGINT := p_bytes;
BEGIN
  IF p_looks AND EXISTS (SELECT 1 FROM ${table("messages")} WHERE wake_at <= ${NOW} AND queue = ANY (p_queues)) THEN
    due := 1;
    RETURN NEXT;
    RETURN;
  END IF;
  SELECT array_agg(first.seq), SUM(first.size) INTO v_seqs, v_bytes FROM (
    SELECT ready.seq, CASE WHEN ready.size <= p_body THEN ready.size ELSE 0 END AS size
    FROM unnest(p_queues) AS asked (name) CROSS JOIN LATERAL (
      SELECT seq, priority, due_at, octet_length(body) AS size FROM ${table("messages")}
      WHERE state = 0 AND queue = asked.name
      ORDER BY priority DESC, due_at, seq LIMIT p_max FOR UPDATE SKIP LOCKED
    ) AS ready ORDER BY priority DESC, due_at, seq LIMIT p_max
  ) AS first;
  IF v_seqs IS NULL THEN
    RETURN;
  END IF;
  IF v_bytes > p_bytes THEN
    FOR place IN 1 .. cardinality(v_seqs) LOOP
      SELECT octet_length(body) INTO v_bytes FROM ${table("messages")} WHERE seq = v_seqs[place];
      CONTINUE WHEN v_bytes > p_body;
      v_left := v_left - v_bytes;
      IF v_left < 0 AND place > p_least THEN
        v_seqs := v_seqs[1 : place - 1];
        due := 2;
        RETURN NEXT;
        EXIT;
      END IF;
    END LOOP;
  END IF;
  RETURN QUERY WITH
    terms AS MATERIALIZED (
      SELECT * FROM unnest(p_tasks, p_leases, p_retentions, p_letters) AS terms (terms_task, lease, retention, letters)
    ),
    taken AS (
      UPDATE ${table("messages")} AS m SET state = 2, wake_at = ${NOW} + p_lease,
        claim = p_claim || m.seq::text
      WHERE m.seq = ANY (v_seqs)
      RETURNING m.seq, m.id, m.task, m.incarnation, m.generation, m.queue, m.priority, m.due_at, m.waits_since, m.body, m.claim AS token, p_worker AS worker
    ),
    run AS (
      SELECT taken.seq, taken.id, taken.task, taken.incarnation, taken.generation, token, worker, lease, retention, letters
      FROM taken JOIN terms ON terms_task = taken.task
    ),
    started AS (
      UPDATE ${table("tasks")} AS t SET state = 'STARTED', published = 1, attempt = t.attempt + 1, fence = t.fence + 1, token = run.token, worker = run.worker, started_at = COALESCE(t.started_at, GREATEST(t.enqueued_at, ${NOW})), due_at = NULL, remove_at = NULL, lease_until = ${NOW} + run.lease, retention = run.retention, check_at = COALESCE(t.check_at, ${NOW} + run.retention), letter_retention = run.letters
      FROM run WHERE t.id = run.id AND t.task = run.task AND t.incarnation = run.incarnation
    AND t.generation = run.generation AND t.state IN ('PENDING', 'RETRY') AND t.remove_at IS NULL
    AND (t.state = 'PENDING' OR t.due_at IS NULL OR t.due_at <= ${NOW}) AND (t.expires_at IS NULL OR t.expires_at > ${NOW})
      RETURNING run.seq, t.fence, t.attempt, t.retries, t.crashes
    )
  SELECT 0, taken.seq, taken.id, taken.task, taken.incarnation, taken.generation::bigint, taken.queue, taken.priority, taken.due_at::bigint, taken.waits_since::bigint, octet_length(taken.body),
    CASE WHEN octet_length(taken.body) <= p_body THEN taken.body END, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint, ${NOW} FROM taken
  UNION ALL
  SELECT 0, started.seq, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, started.fence::bigint, started.attempt::bigint, started.retries::bigint, started.crashes::bigint, 0 FROM started;
END
$claim$`

/** The migrations, in order of their ids. */
export const postgresMigrations: ReadonlyArray<Migration> = [
  {
    id: 1,
    needs: 1,
    name: "tasks and messages",
    statements: (table) => [
      `CREATE DOMAIN ${table("whole")} AS BIGINT CHECK (VALUE BETWEEN 0 AND 8640000000000000)`,
      `CREATE DOMAIN ${table("flag")} AS SMALLINT CHECK (VALUE BETWEEN 0 AND 1)`,
      // 0 no, 1 requested, 2 the message of the open run was withdrawn
      `CREATE DOMAIN ${table("request")} AS SMALLINT CHECK (VALUE BETWEEN 0 AND 2)`,
      `CREATE DOMAIN ${table("task_state")} AS TEXT COLLATE "C"
        CHECK (VALUE IN ('PENDING', 'STARTED', 'RETRY', 'SUCCESS', 'FAILURE'))`,
      `CREATE DOMAIN ${table("task_end")} AS TEXT COLLATE "C"
        CHECK (VALUE IN ('Expired', 'WorkerLost', 'Cancelled', 'Forgotten'))`,
      // 0 ready, 1 delayed, 2 claimed, 3 parked
      `CREATE DOMAIN ${table("message_state")} AS SMALLINT CHECK (VALUE BETWEEN 0 AND 3)`,

      `CREATE TABLE ${table("tasks")} (
        id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
        task TEXT COLLATE "C" NOT NULL,
        incarnation TEXT COLLATE "C" NOT NULL DEFAULT '',
        idempotency_key TEXT COLLATE "C",
        payload_hash TEXT COLLATE "C" NOT NULL,
        published ${table("flag")} NOT NULL,
        state ${table("task_state")} NOT NULL,
        generation ${table("whole")} NOT NULL DEFAULT 0,
        attempt ${table("whole")} NOT NULL DEFAULT 0,
        retries ${table("whole")} NOT NULL DEFAULT 0,
        crashes ${table("whole")} NOT NULL DEFAULT 0,
        fence ${table("whole")} NOT NULL DEFAULT 0,
        token TEXT COLLATE "C",
        worker TEXT COLLATE "C",
        at_most_once ${table("flag")} NOT NULL DEFAULT 0,
        cancel_requested ${table("request")} NOT NULL DEFAULT 0,
        ended ${table("task_end")},
        enqueued_at ${table("whole")} NOT NULL,
        started_at ${table("whole")},
        finished_at ${table("whole")},
        expires_at ${table("whole")},
        due_at ${table("whole")},
        lease_until ${table("whole")},
        check_at ${table("whole")},
        retention ${table("whole")},
        letter_retention ${table("whole")},
        remove_at ${table("whole")},
        queue TEXT COLLATE "C",
        progress TEXT COLLATE "C",
        outcome TEXT COLLATE "C",
        history TEXT COLLATE "C",
        body_queue TEXT COLLATE "C",
        body TEXT COLLATE "C"
      ) WITH (fillfactor = 30, vacuum_truncate = false)`,
      `CREATE UNIQUE INDEX ${table("tasks_key")} ON ${table("tasks")} (task, idempotency_key)
        WHERE idempotency_key IS NOT NULL`,
      `CREATE INDEX ${table("tasks_check")} ON ${table("tasks")} (check_at) WHERE check_at IS NOT NULL`,

      `CREATE TABLE ${table("dead_letters")} (
        pk BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY CHECK (pk BETWEEN 0 AND 8640000000000000),
        id TEXT COLLATE "C" NOT NULL,
        task_id TEXT COLLATE "C",
        task TEXT COLLATE "C",
        incarnation TEXT COLLATE "C" NOT NULL DEFAULT '',
        generation ${table("whole")} NOT NULL,
        queue TEXT COLLATE "C" NOT NULL,
        reason TEXT COLLATE "C" NOT NULL,
        worker TEXT COLLATE "C",
        attempts ${table("whole")} NOT NULL,
        at ${table("whole")} NOT NULL,
        task_retention ${table("whole")},
        fence ${table("whole")} NOT NULL,
        remove_at ${table("whole")},
        outcome TEXT COLLATE "C",
        body TEXT COLLATE "C" NOT NULL
      )`,
      `CREATE UNIQUE INDEX ${table("dead_letters_id")} ON ${table("dead_letters")} (id)`,
      `CREATE INDEX ${table("dead_letters_task")} ON ${table("dead_letters")} (task, pk)`,
      `CREATE INDEX ${table("dead_letters_remove")} ON ${table("dead_letters")} (remove_at)
        WHERE remove_at IS NOT NULL`,

      `CREATE TABLE ${table("workers")} (
        id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
        info TEXT NOT NULL,
        started_at ${table("whole")} NOT NULL,
        seen_at ${table("whole")} NOT NULL,
        until ${table("whole")} NOT NULL
      )`,

      `CREATE TABLE ${table("documents")} (
        kind TEXT COLLATE "C" NOT NULL,
        id TEXT COLLATE "C" NOT NULL,
        version TEXT COLLATE "C" NOT NULL,
        value TEXT COLLATE "C" NOT NULL,
        PRIMARY KEY (kind, id)
      )`,

      // processes that notifications are sent to, by topic
      `CREATE TABLE ${table("listeners")} (
        id TEXT COLLATE "C" NOT NULL,
        topic TEXT COLLATE "C" NOT NULL,
        until ${table("whole")} NOT NULL,
        PRIMARY KEY (id, topic)
      )`,

      `CREATE TABLE ${table("messages")} (
        seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY CHECK (seq BETWEEN 0 AND 8640000000000000),
        queue TEXT COLLATE "C" NOT NULL,
        priority SMALLINT NOT NULL,
        state ${table("message_state")} NOT NULL,
        due_at ${table("whole")} NOT NULL,
        waits_since ${table("whole")},
        wake_at ${table("whole")},
        claim TEXT COLLATE "C",
        reason TEXT COLLATE "C",
        id TEXT COLLATE "C" NOT NULL,
        task TEXT COLLATE "C" NOT NULL,
        incarnation TEXT COLLATE "C" NOT NULL DEFAULT '',
        generation ${table("whole")} NOT NULL,
        body TEXT COLLATE "C" NOT NULL
      ) WITH (
        vacuum_truncate = false,
        autovacuum_vacuum_scale_factor = 0.02,
        autovacuum_vacuum_cost_delay = 0
      )`,
      `CREATE INDEX ${table("messages_ready")} ON ${table("messages")} (queue, priority DESC, due_at, seq)
        WHERE state = 0`,
      `CREATE INDEX ${table("messages_wake")} ON ${table("messages")} (queue, wake_at) WHERE wake_at IS NOT NULL`,
      `CREATE INDEX ${table("messages_delayed")} ON ${table("messages")} (id) WHERE state = 1`,
      `CREATE INDEX ${table("messages_claim")} ON ${table("messages")} (claim) WHERE state = 2`,

      createClaimFunction(table),

      // fills pages, and empties them again
      `INSERT INTO ${table("tasks")} (id, task, payload_hash, published, state, enqueued_at, progress) SELECT 'filling ' || n, '', '', 1, 'PENDING', 0, repeat(md5(n::text), 30) FROM generate_series(1, 1000) AS n`,
      `DELETE FROM ${table("tasks")}`,
      `INSERT INTO ${table("messages")} (queue, priority, state, due_at, id, task, generation, body) SELECT '', 0, 3, 0, '', '', 0, repeat(md5(n::text), 30) FROM generate_series(1, 1000) AS n`,
      `DELETE FROM ${table("messages")}`
    ]
  }
]
