/**
 * Bounds the answers of calls that read (`maxReplySize`).
 *
 * A statement returns the size of each row, and its large texts only up to an equal share of an answer for each row. So rows
 * of a usual size come with one statement, and no answer exceeds its bound. Where a text was withheld, the sizes tell how
 * many of the first rows make an answer, and a second statement reads their texts.
 */
import { maxReplySize } from "../internal/defaults.ts"

/** More bytes than a value has in any database, and an integer of 32 bits, as PostgreSQL takes the parameter for. */
const UNLIMITED = 2 ** 31 - 1

/**
 * Returns up to how many bytes a row's text is part of the first statement's answer, where `rows` rows share an answer that
 * has `taken` bytes already. A single row comes whole.
 */
export const shareOf = (rows: number, taken = 0): number =>
  rows <= 1 && taken === 0 ? UNLIMITED : Math.floor(Math.max(0, maxReplySize - taken) / Math.max(1, rows))

/** Returns how many of the first rows fit into an answer that has `taken` bytes already: at least one if it is empty. */
export const countFitting = (sizes: ReadonlyArray<number>, taken = 0): number => {
  let total = taken
  const end = sizes.findIndex((size, index) => (total += size) > maxReplySize && (index > 0 || taken > 0))
  return end === -1 ? sizes.length : end
}

/**
 * How many rows a call looks at. After an answer that was cut off it is one row more than the answer had, and it doubles
 * with every answer that was not. So rows that do not fit are seldom locked, and seldom read inside of MariaDB, which reads a
 * text to return its size.
 */
export class RowLimit {
  private current = Infinity

  /** Returns how many rows to look at for an answer of at most `rows` rows. */
  of(rows: number): number {
    return Math.min(rows, this.current)
  }

  /** Adapts the limit after an answer that has the first `answered` of `found` rows. */
  adapt(found: number, answered: number): void {
    this.current = answered < found ? answered + 1 : 2 * this.current
  }
}
