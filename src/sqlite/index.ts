/**
 * Results and messages in a SQLite file, on `node:sqlite`.
 */

/** Results alone. */
export * as SqliteBackend from "./SqliteBackend.ts"

/** Messages alone. */
export * as SqliteBroker from "./SqliteBroker.ts"

/** Effect's `SqlClient` over `node:sqlite`. */
export * as SqliteClient from "./SqliteClient.ts"

/** Results and messages in one file. */
export * as SqliteStore from "./SqliteStore.ts"
