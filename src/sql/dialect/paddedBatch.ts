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

/**
 * Returns a function that binds up to `capacity` rows. It goes through the columns one by one, so that the key is
 * constant in the inner loop: going through the rows takes twice as long.
 */
export const bindRows = (
  columns: Columns,
  capacity: number,
  encodeBody: (body: Body) => unknown = (body) => body
): ((rows: ReadonlyArray<AnyBatchRow>) => Array<unknown>) => {
  const entries = Object.entries(columns)
  const width = entries.length
  const size = capacity * width
  return (rows) => {
    const params: Array<unknown> = []
    for (let i = 0; i < size; i++) params.push(null)
    for (const [column, [name, type]] of entries.entries()) {
      let index = column
      for (const row of rows) {
        const value = row[name]
        params[index] = type === "body" ? encodeBody(value as Body) : value
        index += width
      }
    }
    return params
  }
}
