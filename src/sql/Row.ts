/**
 * Checks rows that come out of a table. A row of another shape is an error that names the table, the row and the
 * column.
 */
import { Data, Effect } from "effect"
import { shapeOf } from "../internal/errorText.ts"

/** A row in a table of the store holds a value that the store does not write. */
export class CorruptRow extends Data.TaggedError("CorruptRow")<{
  /** The name of the store: its file, or its database. */
  readonly store: string
  readonly table: string
  readonly column: string
  /** The type and the size of what the column holds; not the value, which may be a secret. */
  readonly holds: string
  /** The id of the row, if it was read. */
  readonly id?: string | undefined
}> {
  override get message(): string {
    const which = this.id === undefined ? "a row" : `the row ${this.id}`
    return `${this.store}: ${which} of the table ${this.table} is corrupt: column ${this.column} holds ${this.holds}`
  }
}

/** Returns whether a column can hold a value. */
export type Check<A> = (value: unknown) => value is A

/** The checks of a row, by column. */
export type Shape<A> = { readonly [K in keyof A]: Check<A[K]> }

/** Accepts any text. */
export const text = (value: unknown): value is string => typeof value === "string"

/** Accepts a safe integer. `reader` converts a `bigint`, as some drivers return, before the check. */
export const integer = (value: unknown): value is number => Number.isSafeInteger(value)

/** Accepts 0 and 1. */
export const flag = (value: unknown): value is 0 | 1 => value === 0 || value === 1

/** Accepts the body of a message: text, or bytes that are not text. */
export const bytes = (value: unknown): value is string | Uint8Array =>
  typeof value === "string" || value instanceof Uint8Array

/** Accepts one of the given words. */
export const oneOf = <const A extends string>(...words: ReadonlyArray<A>): Check<A> => {
  const set: ReadonlySet<unknown> = new Set(words)
  return (value): value is A => set.has(value)
}

/** Accepts NULL too. */
export const orNull =
  <A>(check: Check<A>): Check<A | null> =>
  (value): value is A | null =>
    value === null || check(value)

/** Checks the rows of a table; fails with `CorruptRow`. */
export type Reader<A> = (rows: ReadonlyArray<object>) => Effect.Effect<ReadonlyArray<A>, CorruptRow>

/** Returns a reader of rows of that shape. It replaces values of type `bigint` by numbers in place. */
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
            return Effect.fail(
              new CorruptRow({ store, table, column, holds: shapeOf(value), id: text(id) ? id : undefined })
            )
          }
        }
      }
      return Effect.succeed(rows as ReadonlyArray<A>)
    })
}
