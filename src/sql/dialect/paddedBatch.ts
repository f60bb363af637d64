/**
 * Batches that bind one parameter a value, row after row. Their sizes are powers of two, so that few statements are
 * prepared; parameters of missing rows are NULL.
 */
import type { AnyBatchRow, Columns } from "./Dialect.ts"

/** Returns the next power of two. */
export const powerOfTwo = (count: number): number => {
  let size = 1
  while (size < count) size *= 2
  return size
}

type Body = string | Uint8Array | null | undefined

/** Returns a function that binds up to `capacity` rows. */
export const bindRows = (
  columns: Columns,
  capacity: number,
  encodeBody: (body: Body) => unknown = (body) => body
): ((rows: ReadonlyArray<AnyBatchRow>) => Array<unknown>) => {
  const entries = Object.entries(columns)
  const size = capacity * entries.length
  return (rows) => {
    const params: Array<unknown> = []
    for (const row of rows) {
      for (const [name, type] of entries) {
        const value = row[name]
        params.push(type === "body" ? encodeBody(value as Body) : value)
      }
    }
    while (params.length < size) params.push(null)
    return params
  }
}
