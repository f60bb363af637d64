/** Batches whose rows are parameters one by one. */
import type { Values } from "./Dialect.ts"

/** The next power of two: so few sizes of a statement are enough for all batches. */
export const powerOfTwo = (count: number): number => {
  let size = 1
  while (size < count) size *= 2
  return size
}

/** Row after row; the room that is left is NULL. */
export const bindRows =
  (columns: number, room: number) =>
  (rows: Values): Array<unknown> => {
    const bound: Array<unknown> = []
    for (const row of rows) for (const value of row) bound.push(value)
    for (let left = room * columns - bound.length; left > 0; left--) bound.push(null)
    return bound
  }
