/**
 * Stores in a SQLite file, on `node:sqlite`.
 *
 * @module chicory/sqlite
 */

/** The backend alone: results. */
export * as SqliteBackend from "./SqliteBackend.ts"

/** The broker alone: messages. */
export * as SqliteBroker from "./SqliteBroker.ts"

/** Effect's `SqlClient` over `node:sqlite`. */
export * as SqliteClient from "./SqliteClient.ts"

/** Both services in one file: results and messages. */
export * as SqliteStore from "./SqliteStore.ts"
