/**
 * Stores results and messages in a SQL database through Effect's `SqlClient`: PostgreSQL, MariaDB, SQLite.
 *
 * @module chicory/sql
 */

/** Results alone, beside a broker of another kind. */
export * as SqlBackend from "./SqlBackend.ts"

/** Messages alone, beside a backend of another kind. */
export * as SqlBroker from "./SqlBroker.ts"

/** Results and messages in one database. */
export * as SqlStore from "./SqlStore.ts"
