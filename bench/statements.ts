import { DatabaseSync, StatementSync } from "node:sqlite"

/** Counts the statements that this process runs on SQLite from now on, by any caller. */
export const countStatements = (): (() => number) => {
  let count = 0
  const counted = <T extends object>(prototype: T, method: keyof T) => {
    const original = prototype[method] as (...args: Array<unknown>) => unknown
    prototype[method] = function (this: unknown, ...args: Array<unknown>) {
      count++
      return original.apply(this, args)
    } as T[keyof T]
  }
  for (const method of ["all", "get", "iterate", "run"] as const) counted(StatementSync.prototype, method)
  counted(DatabaseSync.prototype, "exec")
  return () => count
}
