/**
 * Parks messages, and lists and removes dead letters. `settle` and `TaskRows.end` write the dead letters of tasks.
 */
import { Effect } from "effect"
import type { DeadLetter, DeadLetterId, DeadLetterQuery, ParkedMessage } from "../../BackendDriver.ts"
import type { Batch } from "../../BrokerDriver.ts"
import { countFitting, RowLimit, shareOf } from "../answerSize.ts"
import type { Database, StoreError } from "../Database.ts"
import * as Row from "../Row.ts"
import { toMillis } from "../toMillis.ts"
import { columns, type DeadLetterRow, isRetained, shape, toDeadLetter } from "./DeadLetterRow.ts"

/** Parks messages, and lists and removes dead letters. */
export interface DeadLetterOperations {
  /** Needs a transaction. */
  readonly park: (messages: Batch<ParkedMessage>) => Effect.Effect<void, StoreError>
  readonly getMany: (ids: Batch<string>) => Effect.Effect<ReadonlyArray<DeadLetter | undefined>, StoreError>
  readonly list: (page: DeadLetterQuery) => Effect.Effect<ReadonlyArray<DeadLetter>, StoreError>
  readonly listIds: (page: DeadLetterQuery) => Effect.Effect<ReadonlyArray<DeadLetterId>, StoreError>
  readonly count: (task: string | undefined) => Effect.Effect<number, StoreError>
  /** Needs a transaction. */
  readonly remove: (ids: Batch<string>) => Effect.Effect<ReadonlyArray<boolean>, StoreError>
}

/** Prepares the statements of parking: an older dead letter of the same id makes room if its retention is over. */
const makePark = ({ batched, deleteByKeys, dialect, table }: Database): DeadLetterOperations["park"] => {
  const { insertIgnore, now, onConflictDoNothing } = dialect
  const removeOutlived = deleteByKeys<string>({
    table: "dead_letters",
    key: ["id", "text"],
    index: "dead_letters_id",
    and: `remove_at <= ${now}`
  })
  const insert = batched(
    { id: "text", queue: "text", reason: "text", outcome: "text", body: "body", retention: "integer" },
    (batch) =>
      `${insertIgnore} ${table("dead_letters")} (
        id, generation, queue, reason, attempts, fence, at, remove_at, outcome, body
      )
      SELECT batch.id, 0, batch.queue, batch.reason, 0, 0, ${now}, ${now} + batch.retention, batch.outcome, batch.body
      FROM ${batch} WHERE batch.id IS NOT NULL
      ${onConflictDoNothing}`
  )
  return Effect.fnUntraced(function* (messages) {
    yield* removeOutlived(messages.map(({ deadLetterId }) => deadLetterId))
    yield* insert(
      messages.map(({ body, exit, deadLetterId, queue, reason, retentionMillis }) => ({
        id: deadLetterId,
        queue,
        reason,
        outcome: exit,
        body,
        retention: toMillis(retentionMillis)
      }))
    )
  })
}

/** A row of a page. `body` and `outcome` are NULL where they have more bytes than the statement may return. */
interface PageRow extends Omit<DeadLetterRow, "body"> {
  readonly body: DeadLetterRow["body"] | null
  /** Bytes of both. */
  readonly size: number
}

const isWhole = (row: PageRow): row is PageRow & DeadLetterRow => row.body !== null

/** Prepares a statement that selects a page of columns; the parameters of the columns come first. */
const makeSelectPage = ({ dialect, run, table }: Database, columns: string) => {
  const select = (where: string): string =>
    `SELECT ${columns} FROM ${table("dead_letters")} WHERE ${where} AND ${isRetained(dialect)} ORDER BY pk DESC LIMIT ?`
  const all = select("pk < ?")
  const ofTask = select("task = ? AND pk < ?")
  return (params: ReadonlyArray<unknown>, { after, limit, task }: DeadLetterQuery) => {
    const before = after?.order ?? Number.MAX_SAFE_INTEGER
    return task === undefined
      ? run(all, [...params, before, limit])
      : run(ofTask, [...params, task, before, limit])
  }
}

/** Prepares the statements that read a page: at least one dead letter, and as many as make an answer. */
const makeList = (db: Database): DeadLetterOperations["list"] => {
  const { dialect, reader, run, table } = db
  const size = "OCTET_LENGTH(body) + COALESCE(OCTET_LENGTH(outcome), 0)"
  const sized = Object.keys(shape).map((column) =>
    column === "body" || column === "outcome"
      ? `CASE WHEN ${size} <= ? THEN ${column} END AS ${column}`
      : column
  )
  const selectPage = makeSelectPage(db, `${sized.join(", ")}, ${size} AS size`)
  const readPage = reader<PageRow>("dead_letters", {
    ...shape,
    body: Row.orNull(shape.body),
    size: Row.integer
  })
  const selectWhole = `SELECT ${columns} FROM ${table("dead_letters")} WHERE ${dialect.inList("pk", "integer")}`
  const readWhole = reader<DeadLetterRow>("dead_letters", shape)
  const looked = new RowLimit()

  const list = Effect.fnUntraced(function* (
    query: DeadLetterQuery
  ): Effect.fn.Return<ReadonlyArray<DeadLetter>, StoreError> {
    const limit = looked.of(query.limit)
    const share = shareOf(limit)
    const found = yield* Effect.flatMap(selectPage([share, share], { ...query, limit }), readPage)
    const rows = found.slice(0, countFitting(found.map((row) => row.size)))
    looked.adapt(found.length, rows.length)
    const withheld = rows.filter((row) => !isWhole(row)).map(({ pk }) => pk)
    const whole = new Map<number, DeadLetterRow>()
    if (withheld.length > 0) {
      const read = yield* Effect.flatMap(run(selectWhole, [dialect.list(withheld)]), readWhole)
      for (const row of read) whole.set(row.pk, row)
    }
    const letters = rows.flatMap((row) => (isWhole(row) ? row : (whole.get(row.pk) ?? [])))
    // all of them were removed meanwhile, and an empty page would be the last
    if (letters.length === 0 && rows.length > 0) return yield* list(query)
    return letters.map((row) => toDeadLetter(row, dialect))
  })
  return list
}

/** Reads and writes dead letters over one database. */
export const makeDeadLetters = (db: Database): DeadLetterOperations => {
  const { deleteByKeys, dialect, reader, run, table } = db
  const deadLetters = table("dead_letters")
  const retained = isRetained(dialect)
  const read = reader<DeadLetterRow>("dead_letters", shape)
  const readIds = reader<Pick<DeadLetterRow, "pk" | "id" | "at">>("dead_letters", {
    pk: Row.integer,
    id: Row.text,
    at: Row.integer
  })
  const readCount = reader<{ readonly count: number }>("dead_letters", { count: Row.integer })

  const selectByIds = `SELECT ${columns} FROM ${deadLetters} WHERE ${dialect.inList("id", "text")} AND ${retained}`
  const selectPageOfIds = makeSelectPage(db, "pk, id, at")
  const countAll = `SELECT COUNT(*) AS count FROM ${deadLetters} WHERE ${retained}`
  const countOfTask = `SELECT COUNT(*) AS count FROM ${deadLetters} WHERE task = ? AND ${retained}`
  const removeByIds = deleteByKeys<string>({
    table: "dead_letters",
    key: ["id", "text"],
    index: "dead_letters_id"
  })

  return {
    park: makePark(db),
    getMany: (ids) =>
      Effect.map(Effect.flatMap(run(selectByIds, [dialect.list(ids)]), read), (rows) => {
        const found = new Map(rows.map((row) => [row.id, toDeadLetter(row, dialect)]))
        return ids.map((id) => found.get(id))
      }),
    list: makeList(db),
    listIds: (query) =>
      Effect.map(Effect.flatMap(selectPageOfIds([], query), readIds), (rows) =>
        rows.map(({ at, id, pk }) => ({ id, at, order: pk }))
      ),
    count: (task) =>
      Effect.map(
        Effect.flatMap(task === undefined ? run(countAll) : run(countOfTask, [task]), readCount),
        (rows) => rows[0]?.count ?? 0
      ),
    remove: (ids) =>
      Effect.map(removeByIds(ids), (found) => {
        const removed = new Set(found)
        return ids.map((id) => removed.delete(id))
      })
  }
}
