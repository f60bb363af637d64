/** Inserts that meet rows which are there already, where the database knows `ON CONFLICT`. */
import { assignments, type Dialect } from "./Dialect.ts"

/** These parts of a dialect. */
export const onConflict: Pick<Dialect, "insertNew" | "upsert"> = {
  insertNew: ({ columns, returning, select, table }) =>
    `INSERT INTO ${table} (${columns.join(", ")}) ${select} ON CONFLICT DO NOTHING` +
    (returning === undefined ? "" : ` RETURNING ${returning}`),
  upsert: ({ key, set, table, values }) =>
    `INSERT INTO ${table} (${Object.keys(values).join(", ")}) VALUES (${Object.values(values).join(", ")})
    ON CONFLICT (${key.join(", ")}) DO UPDATE SET ${assignments(set((column) => `excluded.${column}`))}`
}
