import * as Starting from "../backend/start.ts"
import * as Messages from "../broker/Messages.ts"
/**
 * The function of PostgreSQL that claims messages and starts what waits, all in one statement.
 *
 * It is a function for the sake of its plan. A statement with `LIMIT` as a parameter is planned anew each time, which
 * costs a fifth of a claim, or it is planned by statistics that say nothing of a queue, which is empty now and has
 * 100,000 messages in a minute: then all of them would be sorted for every claim. Here it is planned once a session,
 * along the indexes.
 *
 * What was published does not change: another text has another name, made by another migration.
 */
import { assignments } from "../dialect/Dialect.ts"
import { postgresDialect } from "../dialect/postgresDialect.ts"

/** Its name, for `table`. */
export const claimFunction = "claim_1"

/** Makes it. */
export const createClaimFunction = (table: (name: string) => string): string => {
  const { now, skipLocked } = postgresDialect
  const messages = table("messages")
  const columns = Messages.claimableColumns
  return `CREATE FUNCTION ${table(claimFunction)} (
  p_looks BOOLEAN, p_queues TEXT[], p_max BIGINT, p_lease BIGINT, p_claim TEXT, p_worker TEXT,
  p_tasks TEXT[], p_leases BIGINT[], p_retentions BIGINT[], p_letters BIGINT[]
) RETURNS TABLE (
  due INTEGER, seq BIGINT, id TEXT, task TEXT, generation BIGINT, queue TEXT, priority SMALLINT, due_at BIGINT,
  body TEXT, fence BIGINT, attempt BIGINT, retries BIGINT, crashes BIGINT, now BIGINT
) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_sort = off
SET jit = off
AS $claim$
#variable_conflict use_column
BEGIN
  RETURN QUERY WITH
    terms AS MATERIALIZED (
      SELECT * FROM unnest(p_tasks, p_leases, p_retentions, p_letters) AS terms (terms_task, lease, retention, letters)
    ),
    looked AS MATERIALIZED (
      SELECT CASE WHEN p_looks AND EXISTS (
        SELECT 1 FROM ${messages} WHERE wake_at <= ${now} AND queue = ANY (p_queues)
      ) THEN 1 ELSE 0 END AS due
    ),
    taken AS (
      UPDATE ${messages} AS m SET state = ${Messages.CLAIMED}, wake_at = ${now} + p_lease,
        claim = m.seq::text || p_claim
      WHERE m.seq = ANY (ARRAY (
        SELECT first.seq FROM unnest(p_queues) AS asked (name) CROSS JOIN LATERAL (
          SELECT seq, priority, due_at FROM ${messages}
          WHERE state = ${Messages.READY} AND queue = asked.name AND (SELECT looked.due FROM looked) = 0
          ${Messages.inOrder} LIMIT p_max ${skipLocked}
        ) AS first ${Messages.inOrder} LIMIT p_max
      ))
      RETURNING ${columns.map((column) => `m.${column}`).join(", ")}, m.claim AS token, p_worker AS worker
    ),
    run AS (
      SELECT taken.seq, taken.id, taken.generation, token, worker, lease, retention, letters
      FROM taken JOIN terms ON terms_task = taken.task
    ),
    started AS (
      UPDATE ${table("tasks")} AS t SET ${assignments(Starting.assignments(now, "run"))}
      FROM run WHERE t.id = run.id AND ${Starting.isStartable(now, "run.generation")}
      RETURNING run.seq, t.fence, t.attempt, t.retries, t.crashes
    )
  SELECT 0, ${columns.map((column) => `taken.${column}`).join(", ")}, NULL::bigint, NULL::bigint, NULL::bigint,
    NULL::bigint, ${now} FROM taken
  UNION ALL
  SELECT 0, started.seq, ${columns
    .slice(1)
    .map(() => "NULL")
    .join(", ")}, started.fence, started.attempt, started.retries, started.crashes, 0 FROM started
  UNION ALL
  SELECT 1, ${columns.map(() => "NULL").join(", ")}, NULL, NULL, NULL, NULL, 0 FROM looked WHERE looked.due = 1;
END
$claim$`
}
