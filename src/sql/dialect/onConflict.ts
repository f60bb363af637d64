import type { Dialect } from "./Dialect.ts"

/** The parts of dialects with `INSERT … ON CONFLICT`. */
export const onConflict: Pick<
  Dialect,
  "insertIgnore" | "onConflictDoNothing" | "onConflictUpdate" | "incoming"
> = {
  insertIgnore: "INSERT INTO",
  onConflictDoNothing: "ON CONFLICT DO NOTHING",
  onConflictUpdate: (key) => `ON CONFLICT (${key}) DO UPDATE SET`,
  incoming: (column) => `excluded.${column}`
}
