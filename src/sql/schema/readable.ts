/** What the schema refuses since no program could read it: one such row would end every claim that meets it. */
import { latestMillis } from "../../internal/dates.ts"

/** Counts, and times that are dates; counts do not come as far either. */
export const readable = (...columns: ReadonlyArray<string>): string =>
  `CHECK (${columns.map((column) => `${column} BETWEEN 0 AND ${latestMillis}`).join(" AND ")})`

/** Yes or no. */
export const flags = (...columns: ReadonlyArray<string>): string =>
  `CHECK (${columns.map((column) => `${column} IN (0, 1)`).join(" AND ")})`
