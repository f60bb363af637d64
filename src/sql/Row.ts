/**
 * Checks of what comes out of a table. A row that does not fit is an error that says where it lies.
 */
import { Data, Effect } from "effect"

/** A row in a table of the store is not as the store writes it. */
export class CorruptRow extends Data.TaggedError("CorruptRow")<{
  /** The file or database. */
  readonly store: string
  readonly table: string
  readonly column: string
  readonly value: unknown
  /** The row's id, where it was read. */
  readonly id?: string | undefined
}> {
  override get message(): string {
    const shown = String(JSON.stringify(this.value) ?? this.value).slice(0, 80)
    const which = this.id === undefined ? "a row" : `the row ${this.id}`
    return `${this.store}: ${which} of the table ${this.table} is corrupt: column ${this.column} holds ${shown}`
  }
}

/** Whether a value can be what a column holds. */
export type Check<A> = (value: unknown) => value is A

/** What the columns of a row hold. */
export type Shape<A> = { readonly [K in keyof A]: Check<A[K]> }

/** Any text. */
export const text = (value: unknown): value is string => typeof value === "string"

/** A whole number. A `bigint`, as some drivers give, is read as a number. */
export const integer = (value: unknown): value is number => Number.isSafeInteger(value)

/** 0 or 1. */
export const flag = (value: unknown): value is 0 | 1 => value === 0 || value === 1

/** A message's body: text, or bytes that are none. */
export const bytes = (value: unknown): value is string | Uint8Array =>
  typeof value === "string" || value instanceof Uint8Array

/** One of the words. */
export const oneOf = <const A extends string>(...words: ReadonlyArray<A>): Check<A> => {
  const set: ReadonlySet<unknown> = new Set(words)
  return (value): value is A => set.has(value)
}

/** Or NULL. */
export const orNull =
  <A>(check: Check<A>): Check<A | null> =>
  (value): value is A | null =>
    value === null || check(value)

/** Checks rows of one table. */
export type Reader<A> = (rows: ReadonlyArray<object>) => Effect.Effect<ReadonlyArray<A>, CorruptRow>

/** A reader of rows of that shape. */
export const reader = <A extends object>(store: string, table: string, shape: Shape<A>): Reader<A> => {
  const columns = Object.entries(shape) as Array<[column: string, check: Check<unknown>]>
  return (rows) =>
    Effect.suspend(() => {
      for (const row of rows as ReadonlyArray<Record<string, unknown>>) {
        for (const [column, check] of columns) {
          let value = row[column]
          if (typeof value === "bigint") value = row[column] = Number(value)
          if (!check(value)) {
            const { id } = row
            return Effect.fail(new CorruptRow({ store, table, column, value, id: text(id) ? id : undefined }))
          }
        }
      }
      return Effect.succeed(rows as ReadonlyArray<A>)
    })
}
